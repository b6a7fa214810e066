"""Where and how a run computes: everything that the config leaves to the machine, resolved once into `Resolved`."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from groundup.config import io
from groundup.config.errors import UsageError, UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.train import TrainConfig
from groundup.distributed.ranks import World
from groundup.kernels.training import load_training_kernels
from groundup.loop.micro_batch import estimate
from groundup.loop.small_models import faster_device
from groundup.parts.pick_blocks import pick_products
from groundup.planner.memory import Arithmetic, memory_of_run
from groundup.runtime.allocator import allocate_for_steps
from groundup.runtime.device import pick_device
from groundup.runtime.matmul import Matmul
from groundup.runtime.precision import Precision, pick_precision
from groundup.runtime.stored import PlainKernels
from groundup.runtime.threads import take_usual_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What `auto` became: logged, saved in every checkpoint, and used again when the run is resumed."""

    device: str
    precision: str
    matmul: Matmul
    parallel: str
    processes: int
    micro_batch_size: int
    threads: int
    compile: str
    """on or off."""
    vocab_size: int
    background: bool = False
    """Whether checkpoints are written while training goes on."""
    one_call: bool = False
    """Whether kernels compute whole blocks, in float32, too."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return io.to_dict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Resolved":
        """The inverse of `to_dict`.

        Raises:
            UserError: It is not what `to_dict` made.
        """
        return io.from_dict(cls, values, where="resolved")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupRequest:
    """What a setup is chosen from."""

    config: TrainConfig
    shape: GPTConfig | ModernConfig
    """The model's, with its vocabulary."""
    world: World
    parallel: str
    """none, ddp or fsdp."""
    say: Callable[[str], None]
    """Told lines on what a person should know of kernels and threads."""
    saved: Resolved | None = None
    """What the run that is resumed had resolved."""

    @property
    def same_world(self) -> bool:
        """Whether the run that is resumed had as many processes."""
        return self.saved is not None and self.saved.processes == self.world.size


@dataclass(frozen=True, slots=True)
class Setup:
    """Where and how a run computes; `auto` is resolved."""

    device: torch.device
    precision: Precision
    kernels: PlainKernels
    """Compiled ones on a CPU that can have them."""
    matmul: Matmul
    one_call: bool
    """Whether kernels compute whole blocks, in float32, too."""
    world: World
    parallel: str
    """none, ddp or fsdp."""
    micro_batch_size: int
    """Sequences per forward pass of one rank."""
    shrinks_on_oom: bool
    """Whether micro-batches become smaller when memory runs out."""


def pick_setup(request: SetupRequest) -> Setup:
    """Pick device, threads and precision: those the run began with, where it is resumed and asks for no other."""
    config, world, saved = request.config, request.world, request.saved
    if request.parallel == "fsdp" and config.lora.rank:
        raise UsageError("lora needs no fsdp: its optimizer state is small; use --runtime.parallel ddp")
    if request.parallel == "fsdp" and config.optim.name == "muon":
        raise UsageError(
            "muon needs whole gradient matrices, and fsdp gives each rank a part of them; use --runtime.parallel ddp or"
            " --optim.name adamw"
        )
    device = _device(request)
    # Where there are more or fewer processes than before, they share the cores in another way.
    known = saved.threads if saved and request.same_world else 0
    if threads := config.runtime.threads or known:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        allocate_for_steps(recompute=config.runtime.recompute)
    # Before anything is measured: until then their compilers may have all cores.
    kernels = load_training_kernels(request.say) if device.type == "cpu" else PlainKernels()
    asked = saved.precision if saved else config.runtime.precision
    precision = pick_precision(asked, device, n_embd=request.shape.n_embd)
    if world.size > 1:  # auto measures on a CPU, and all ranks must compute alike
        precision = pick_precision(world.broadcast(precision.name), device, n_embd=request.shape.n_embd)
    size = _micro_batch_size(request, precision, kernels)
    matmul, one_call = _products(request, precision, kernels, rows=size * request.shape.block_size)
    if one_call:
        take_usual_threads(request.say)
    return Setup(
        device=device,
        precision=precision,
        kernels=kernels,
        matmul=matmul,
        one_call=one_call,
        world=world,
        parallel=request.parallel,
        micro_batch_size=size,
        shrinks_on_oom=config.runtime.micro_batch_size == "auto" and request.parallel != "fsdp",
    )


def _device(request: SetupRequest) -> torch.device:
    """The device of the flag; with auto that of the run which is resumed, or the fastest for this model."""
    asked, saved, world = request.config.runtime.device, request.saved, request.world
    with contextlib.suppress(UserError):  # another machine goes on
        if asked == "auto" and saved:
            return pick_device(saved.device)
    device = pick_device(asked)
    if asked != "auto" or saved or world.size > 1:
        return device
    with torch.random.fork_rng([]):
        return faster_device(device, request.shape, samples=request.config.samples_per_process(1))


def _micro_batch_size(request: SetupRequest, precision: Precision, kernels: PlainKernels) -> int:
    """The size of the flag; with auto what the run has learned, or else the planner's estimate."""
    asked = request.config.runtime.micro_batch_size
    if asked != "auto":
        return asked
    if request.saved and request.same_world:
        return request.saved.micro_batch_size
    device, cpu = precision.device, precision.device.type == "cpu"
    how = Arithmetic(half=precision.half, cpu=cpu, kernels=kernels.lanes > 0, bf16=kernels.has_bf16)
    return estimate(
        memory_of_run(request.config, request.shape, how),
        samples=request.config.samples_per_process(request.world.size),
        device=device,
        parallel=request.parallel,
        world=request.world,
    )


def _products(request: SetupRequest, precision: Precision, kernels: PlainKernels, *, rows: int) -> tuple[Matmul, bool]:
    """The library of matrix products, and whether blocks do without: the run's, or the faster on the main rank."""
    config, saved = request.config, request.saved
    if saved:
        return saved.matmul, saved.one_call
    if config.runtime.matmul != "auto" or precision.device.type != "cpu":
        return "default" if config.runtime.matmul == "auto" else config.runtime.matmul, False
    lora = bool(config.lora.rank)
    matmul, one_call = request.world.broadcast(
        pick_products(kernels, request.shape, half=precision.half, rows=rows, lora=lora)
    )
    return matmul, one_call
