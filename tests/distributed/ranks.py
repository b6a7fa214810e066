"""What runs in the processes of a distributed test; imported by name there."""

import contextlib
import datetime
import errno
import itertools
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from forked import shorten
from groundup.cli.main import main
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.train import OptimConfig
from groundup.data.dataset import Split
from groundup.data.index import ShardInfo
from groundup.data.loader import TrainBatches, eval_batches
from groundup.data.shards import write_shard
from groundup.distributed.parallel import refuse_different_weights, replicate, shard, whole
from groundup.distributed.ranks import World, joined
from groundup.distributed.signals import StopRequest
from groundup.evaluation.loss import evaluate_loss
from groundup.files import atomic as files
from groundup.kernels.training import load_training_kernels
from groundup.loop.state import TrainState
from groundup.loop.trainer import Trainer
from groundup.model.build import build_model
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.optim.build import build_optimizers
from groundup.parts.swap import use_cpu_parts
from groundup.runtime.precision import Precision
from groundup.training import build, setup

CPU = torch.device("cpu")
CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=11)
FITS_KERNELS = {
    "gpt": GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=8, vocab_size=11),
    "modern": ModernConfig(n_layer=2, n_head=2, n_embd=32, block_size=8, vocab_size=11),
}
"""Heads fill their vectors, and blocks are one step."""
SAMPLES = 24
"""Sequences per step: many numbers of ranks share them."""


def enter(connection, function, rank, size, port, folder, arguments):
    """Become one rank, as torchrun would have made it, and send back what the function returns."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "GROUP_RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    os.chdir(folder)
    torch.set_num_threads(1)
    shorten(setattr)
    with Path(f"rank{rank}.txt").open("a") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    connection.send(globals()[function](**arguments))
    sys.stdout.flush()


def command(words, patch=None):
    """groundup WORDS, with something broken on purpose; the exit code."""
    try:
        with globals()[patch]() if patch else contextlib.nullcontext():
            return main(words)
    except SystemExit as error:
        return error.code


@contextlib.contextmanager
def store_of_rank_0():
    """As srun and mpirun start ranks: nobody but rank 0 holds the store, at the port that port.txt names."""
    del os.environ["TORCHELASTIC_USE_AGENT_STORE"]
    os.environ["MASTER_PORT"] = Path("port.txt").read_text()
    with short_of_time_later():
        yield


@contextlib.contextmanager
def short_of_time_later():
    """Ranks have 6 s from the step after the first checkpoint on, however long they take to meet.

    shortRANK.txt says that it is so, and how many seconds they had before.
    """
    join, step, given = dist.init_process_group, Trainer.train_step, []
    file = Path(f"short{os.environ['RANK']}.txt")

    def joining(*words, timeout, **options):
        given.append(timeout)
        join(*words, timeout=timeout, **options)

    def stepping(self):
        if not file.exists() and any(Path("runs").glob("*/checkpoints/step-*")):
            dist.distributed_c10d._set_pg_timeout(datetime.timedelta(seconds=6))
            file.write_text(f"{given[0].total_seconds():g}")
        return step(self)

    dist.init_process_group, Trainer.train_step = joining, stepping
    yield


# ---- training in double precision, which the command line does not offer


def make_split(folder="."):
    """3,000 random tokens in a shard; the first to ask writes them."""
    file = Path(folder) / "train.bin"
    ids = np.random.default_rng(5).integers(CONFIG.vocab_size, size=3000)
    if not file.exists():
        write_shard(file, ids, vocab_size=CONFIG.vocab_size, fingerprint="00" * 32)
    info = ShardInfo(file=file.name, split="train", n_tokens=len(ids), n_bytes=len(ids), n_documents=1,
                     max_id=int(ids.max()), sha256="00" * 32)  # fmt: skip
    return Split(Path(folder), (info,), "00" * 32)


def make_trainer(
    world, split, *, parallel, accumulate, optimizer="adamw", dtype=torch.float64, kind=None, matmul="default",
    precision="fp32",
):  # fmt: skip
    """With a kind, a model of FITS_KERNELS on the kernels of training, in one call each way."""
    model = init_weights(build_model(FITS_KERNELS.get(kind, CONFIG)), seed=0).to(dtype)
    if kind:
        use_cpu_parts(model, matmul, load_training_kernels(print), alone=parallel == "none", one_call=True)
    module = LossModule(model)
    if parallel == "ddp":
        module = replicate(module, CPU)
    elif parallel == "fsdp":
        module = shard(module, model.blocks, CPU, world)
    micro = SAMPLES // accumulate // world.size
    return Trainer(
        model=model,
        loss_module=module,
        optimizers=build_optimizers(model, OptimConfig(name=optimizer, lr=1e-2, min_lr_ratio=0), CPU),
        batches=TrainBatches(split, block_size=CONFIG.block_size, micro_batch_size=micro, seed=1,
                             rank=world.rank, world_size=world.size),
        lr_scale=lambda step: 1 / (step + 1),
        precision=Precision(precision, CPU, ""),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=CPU,
        max_steps=100,
        grad_accum_steps=accumulate,
        tokens_per_step=SAMPLES * CONFIG.block_size,
        grad_clip=0.2,
        state=TrainState(),
        stop=StopRequest(),
        world=world,
    )  # fmt: skip


def learn(world, split, *, steps=10, **options):
    """Losses, the gradient of the first step (after clipping, as the optimizer sees it), norms, final weights."""
    trainer = make_trainer(world, split, **options)
    gradients = []

    def note(optimizer, *_):
        if trainer.state.step == 0:
            gradients.extend(whole(p.grad).clone() for group in optimizer.param_groups for p in group["params"])

    for optimizer in trainer.optimizers:
        optimizer.register_step_pre_hook(note)
    metrics = [trainer.train_step() for _ in range(steps)]
    refuse_different_weights(trainer.model, world)
    return {
        "losses": [m.loss.item() for m in metrics],
        "norms": [m.grad_norm.item() for m in metrics],
        "gradients": [g.numpy() for g in gradients],
        "weights": {name: whole(p).detach().numpy() for name, p in trainer.model.state_dict().items()},
    }


def learn_together(options):
    with joined(CPU, timeout=240) as world:
        return [learn(world, make_split(), **each) for each in options]


# ---- the world itself


def talk():
    """Every way in which ranks agree."""
    with joined(CPU, timeout=240) as world:
        with world.main_first("corpus"), Path("order.txt").open("a") as file:
            file.write(f"{world.rank}\n")
        with world.main_first("split"):
            split = make_split()
        model = init_weights(GPT(CONFIG), seed=3)
        val = evaluate_loss(
            LossModule(model),
            eval_batches(split, block_size=8, batch_size=7, max_tokens=700, rank=world.rank, world_size=world.size),
            device=CPU, bytes_per_token=2.0, world=world,
        )  # fmt: skip
        result = {
            "sum": world.sum(torch.tensor([1.0, world.rank])).tolist(),
            "mean": world.mean(torch.tensor(float(world.rank))).item(),
            "max": world.max(10 * world.rank),
            "gather": [t.tolist() for t in world.gather(torch.tensor([world.rank, 7]))],
            "broadcast": [world.broadcast({"rank": world.rank, "ü": None}), world.broadcast(None)],
            "different": world.ranks_that_differ("same" if world.rank != 1 else "other"),
            "val": (val.nats, val.n_tokens, val.n_bytes),
        }
        refuse_different_weights(model, world)
        if world.rank == world.size - 1:
            with torch.no_grad():
                model.h[1].mlp.c_fc.weight[0, 0] += 1e-7
        try:
            refuse_different_weights(model, world)
        except UserError as error:
            result["weights"] = str(error)
        return result


def evaluate_alone(split):
    """The same evaluation in one process."""
    batches = eval_batches(split, block_size=8, batch_size=7, max_tokens=700)
    model = init_weights(GPT(CONFIG), seed=3)
    return evaluate_loss(LossModule(model), batches, device=CPU, bytes_per_token=2.0, world=World())


# ---- things that break


@contextlib.contextmanager
def nan_on_rank_1():
    """The 5th loss of rank 1 is not a number; a rank whose weights change all the same dies."""
    forward, step, calls = LossModule.forward, Trainer.train_step, []

    def checked(self):
        before = [p.detach().clone() for p in self.model.parameters()]
        try:
            return step(self)
        except UserError:
            assert all(map(torch.equal, before, self.model.parameters()))
            raise

    Trainer.train_step = checked

    def broken(self, idx, targets, *tokens):
        if torch.is_grad_enabled():
            calls.append(1)
        loss = forward(self, idx, targets, *tokens)
        return loss * float("nan") if os.environ["RANK"] == "1" and len(calls) == 5 and self.training else loss

    LossModule.forward = broken
    yield


@contextlib.contextmanager
def little_memory_on_rank_1():
    """It holds 4 sequences; from the 12th pass on (two are trials, so: step 5, second micro-step) only 2."""
    forward, calls = LossModule.forward, []

    def limited(self, idx, targets, *tokens):
        if os.environ["RANK"] == "1" and torch.is_grad_enabled():
            calls.append(len(idx))
            if len(idx) > (4 if len(calls) < 12 else 2):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return forward(self, idx, targets, *tokens)

    LossModule.forward = limited
    yield


@contextlib.contextmanager
def stop_after_4_steps():
    """The last rank gets a SIGTERM during the 4th step of its session."""
    step, made = Trainer.train_step, []

    def stopping(self):
        made.append(1)
        if len(made) == 4 and self.world.rank == self.world.size - 1:
            signal.raise_signal(signal.SIGTERM)
        return step(self)

    Trainer.train_step = stopping
    yield


@contextlib.contextmanager
def in_one_call():
    """Kernels measure faster than any library."""
    setup.pick_products = lambda *_, **__: ("default", True)
    yield


@contextlib.contextmanager
def in_one_call_for_4_steps():
    with in_one_call(), stop_after_4_steps():
        yield


@contextlib.contextmanager
def other_weights_on_rank_1():
    original = build.init_weights
    build.init_weights = lambda model, *, seed: original(model, seed=seed + int(os.environ["RANK"]))
    yield


@contextlib.contextmanager
def full_disk_on_rank_1():
    """Rank 1 cannot write its share of a checkpoint."""
    write = HuggingFaceStorageWriter.write_data

    def full(self, plan, planner):
        if os.environ["RANK"] == "1":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, plan, planner)

    HuggingFaceStorageWriter.write_data = full
    yield


@contextlib.contextmanager
def keep_the_disk_at_every_point():
    """Copies the checkpoints to left/NUMBER-STEP-RANK before each operation of ours or of torch's on their files.

    Python tells of every file that is opened, renamed or removed, whoever does it. STEP is the checkpoint on its way.
    """
    rank, folder, busy = os.environ["RANK"], Path("runs/run/checkpoints"), []
    steps, counter = [], itertools.count()
    step = Trainer.train_step

    def counted(self):
        steps.append(1)
        return step(self)

    def keep(*_):
        if busy or not folder.exists():
            return
        busy.append(1)
        to_come = len(steps) + len(steps) % 2
        shutil.copytree(folder, f"left/{next(counter):04d}-{to_come}-{rank}")
        busy.clear()

    def heard(event, arguments):
        if busy or not event.startswith(("open", "os.", "shutil.")) or not arguments:
            return
        reads = event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if not reads and event not in ("os.listdir", "os.scandir") and str(folder) in str(arguments):
            keep()

    Trainer.train_step = counted
    files.fault_point = keep
    sys.addaudithook(heard)
    yield
