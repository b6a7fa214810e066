"""The processes that train together, as torchrun starts them: their ranks, and how they agree.

torchrun gives every process RANK, WORLD_SIZE and the address of a store; `joined` makes a process group of them and
`World` is what everybody else sees of it. A run of one process is a world of size 1, in which every function returns at
once. GPU tensors travel by NCCL, those on the CPU by gloo.
"""

import contextlib
import datetime
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from groundup.config.errors import UsageError, UserError, first_line
from groundup.distributed.rendezvous import answered, meet
from groundup.files.processes import end_with_parent
from groundup.terminal.ended import Ended

T = TypeVar("T")
MAX_STARTS = 3
"""A job that has begun so often at one step is not started there again."""
_FAILED, _CAUSE = "groundup/failed", "groundup/cause"
_ROLL_CALL_SECONDS = 3.0
"""Ranks that notice a lost process wait so long for the others to report that they are alive."""
_LOST = re.compile(r"connection (closed|reset|refused)|timed out|timeout|broken pipe|nccl", re.IGNORECASE)
"""Words in error messages of torch.distributed that mean a peer process died."""


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this machine."""
    store: Store | None = field(default=None, compare=False)
    """Keys and values that all processes see; None in a world of one."""
    job_store: Store | None = field(default=None, compare=False)
    """The same, but what is in it outlives a restart of the processes by torchrun."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints for all."""
        return self.rank == 0

    def mean(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its mean over all ranks; returns it."""
        return self.sum(tensor).div_(self.size) if self.size > 1 else tensor

    def sum(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over all ranks; returns it."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def max(self, number: int) -> int:
        """The largest of the ranks' numbers."""
        if self.size == 1:
            return number
        box = torch.tensor(number)
        dist.all_reduce(box, dist.ReduceOp.MAX)
        return int(box)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all ranks, which have one shape and type, by rank."""
        if self.size == 1:
            return [tensor]
        boxes = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(boxes, tensor)
        return boxes

    def broadcast(self, value: Any) -> Any:
        """What rank 0 gave, a JSON value; what the others gave is ignored."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_main else b""
        box = torch.zeros(self.max(len(text)), dtype=torch.uint8)
        if self.is_main:
            box.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(box, src=0)
        return json.loads(bytes(box.tolist()))

    def ranks_that_differ(self, text: str) -> list[int]:
        """Compare a text across ranks.

        Returns:
            The ranks whose text is not rank 0's; the same list on every rank.
        """
        mine = torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        digests = self.gather(mine)
        return [rank for rank, other in enumerate(digests) if not torch.equal(other, digests[0])]

    @contextlib.contextmanager
    def main_first(self, what: str) -> Iterator[None]:
        """Rank 0 runs the block first, then one process of every other machine, then the rest.

        What the first ones make (shards, a download) lies ready for the others, be the disk shared or not. They wait as
        long as it takes: preparing a corpus has no time limit.
        """
        machine = os.environ.get("GROUP_RANK", "0")
        if self.local_rank:
            self._wait_for(f"groundup/{what}/{machine}")
        elif self.rank:
            self._wait_for(f"groundup/{what}/0")
        yield
        if self.store is not None and not self.local_rank:
            self.store.set(f"groundup/{what}/{machine}", "")

    def refuse_crash_loop(self, step: int) -> None:
        """Count how often this job has begun at a step; rank 0 asks.

        Raises:
            UserError: MAX_STARTS times before: each time it failed without saving a later step, and would again.
        """
        if self.job_store is not None and self.job_store.add(f"groundup/begun/{step}", 1) > MAX_STARTS:
            cause = self.job_store.get(_CAUSE).decode() if self.job_store.check([_CAUSE]) else "unknown"
            loop = f"began {MAX_STARTS} times at step {step} and never saved a later one; the cause: "
            raise UserError(loop + cause.removeprefix(loop))

    def _wait_for(self, key: str) -> None:
        """Wait until a key is set; leave when another process has failed."""
        assert self.store is not None
        store = self.store
        while not answered(lambda: store.check([key])):
            if answered(lambda: store.check([_FAILED])):
                raise SystemExit(1)
            time.sleep(0.05)


def launched() -> bool:
    """Whether torchrun (or something that sets the same variables) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def local_size() -> int:
    """Processes of this job on this machine, which share its memory."""
    return _variable("LOCAL_WORLD_SIZE", 1, least=1) if launched() else 1


def job() -> str | None:
    """What torchrun calls this job, the same after every restart of its processes; None without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def restarted() -> bool:
    """Whether torchrun has started the processes of this job again, after one of them failed."""
    return _variable("TORCHELASTIC_RESTART_COUNT", 0) > 0


def _variable(name: str, default: int, *, least: int = 0, most: int = 2**31) -> int:
    """A whole number that the launcher has put into the environment.

    Raises:
        UsageError: It is none, or out of range.
    """
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 11 and least <= int(text) <= most):
        raise UsageError(f"the variable {name}, which a launcher sets, must be {least} to {most}, got {text!r}")
    return int(text)


def launcher() -> str:
    """What stands before `groundup` on the command line that started this process: empty, or torchrun's words."""
    if not launched():
        return ""
    here, everywhere = local_size(), _variable("WORLD_SIZE", 1, least=1)
    machines = "--standalone" if here == everywhere else f"--nnodes {everywhere // here}"
    return f"torchrun {machines} --nproc_per_node {here} -m "


def resolve_parallel(requested: str) -> str:
    """none, ddp or fsdp.

    Raises:
        UsageError: The request does not fit how the process was started.
    """
    if not launched():
        if requested in ("ddp", "fsdp"):
            raise UsageError(
                f"runtime.parallel {requested} needs processes: start it with"
                " torchrun --standalone --nproc_per_node N -m groundup train ..., or alone with --runtime.parallel auto"
            )
        return "none"
    size = _variable("WORLD_SIZE", 1, least=1)
    if requested == "none" and size != 1:
        raise UsageError(
            f"runtime.parallel none would train {size} models that know nothing of each other; use ddp or fsdp,"
            " or start one process without torchrun"
        )
    return "ddp" if requested == "auto" else requested


@contextlib.contextmanager
def joined(device: torch.device, *, timeout: float) -> Iterator[World]:
    """Join the processes that torchrun started; alone, a world of one.

    The first process that fails says why. The others leave without a word, so that one mistake is one line.

    Args:
        device: cpu or cuda; a process takes the GPU of its local rank.
        timeout: Seconds to wait for a process before it is taken for dead.

    Raises:
        UserError: A process cannot join, or is lost on the way.
        UsageError: What the launcher says of the process is not sound.
    """
    if not launched():
        yield World()
        return
    end_with_parent()
    world = _join(device, timeout)
    leave: Callable[[], object] = dist.destroy_process_group
    try:
        yield world
        world.max(0)  # no rank leaves while others still work
    except UserError as error:
        if not _speaks(world, str(error)):
            raise SystemExit(error.exit_code) from None
        raise
    except RuntimeError as error:
        if not _is_loss(error):
            _speaks(world, str(error))
            raise
        leave = partial(answered, dist.destroy_process_group)  # it waits for the others, and they may be stopped
        message = _who_is_lost(world, error)
        if message is None:
            raise SystemExit(1) from None
        raise UserError(message) from error
    except (KeyboardInterrupt, Ended):
        leave = partial(answered, dist.destroy_process_group)
        raise
    finally:
        with contextlib.suppress(RuntimeError):
            leave()


def _join(device: torch.device, timeout: float) -> World:
    size = _variable("WORLD_SIZE", 1, least=1)
    rank = _variable("RANK", 0, most=size - 1)
    local_rank = _variable("LOCAL_RANK", 0)
    _variable("MASTER_PORT", 0, most=65535)
    backend = "gloo"
    if device.type == "cuda":
        there = torch.cuda.device_count()
        if local_rank >= there:
            raise UserError(
                f"torchrun started more processes here than there are GPUs: use --nproc_per_node {there} or less"
            )
        torch.cuda.set_device(local_rank)
        backend = "cpu:gloo,cuda:nccl"
    elif device.type != "cpu":
        raise UserError(f"several processes cannot share {device.type}; use --runtime.device cpu")
    limit = datetime.timedelta(seconds=timeout)
    try:
        store, job_store = meet(rank, size, timeout)
        torchs = PrefixStore("torch", store)
        dist.init_process_group(backend, store=torchs, rank=rank, world_size=size, timeout=limit)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"rank {rank} of {size} cannot join the others: {first_line(error)}") from error
    return World(rank=rank, size=size, local_rank=local_rank, store=store, job_store=job_store)


def _is_loss(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or _LOST.search(str(error)) is not None


def _speaks(world: World, cause: str) -> bool:
    """Whether this is the first process that fails; its cause is kept for those that are started after it."""
    assert world.store is not None
    assert world.job_store is not None
    try:
        first = answered(partial(world.store.add, _FAILED, 1)) == 1
        if first and (lines := cause.splitlines()):
            answered(partial(world.job_store.set, _CAUSE, lines[0]))
    except RuntimeError:  # the store is gone, too
        return True
    return first


def _who_is_lost(world: World, error: RuntimeError) -> str | None:
    """Call the roll after a broken connection; None where another process has said what happened."""
    store = world.store
    assert store is not None
    try:
        if answered(lambda: store.check([_FAILED])):
            return None
        answered(lambda: store.set(f"groundup/alive/{world.rank}", ""))
        time.sleep(_ROLL_CALL_SECONDS)
        ranks = range(world.size)
        missing = answered(lambda: [str(r) for r in ranks if not store.check([f"groundup/alive/{r}"])])
        lost = f"rank {' and '.join(missing)}" if missing else "the connection to another rank"
        said = (
            f"{lost} of {world.size} is lost: it died, or hung for longer than runtime.timeout; see what it wrote last"
        )
        return said if _speaks(world, said) else None
    except RuntimeError:
        return f"rank {world.rank} of {world.size} lost the others: {first_line(error)}"
