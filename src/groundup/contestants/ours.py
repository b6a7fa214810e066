"""The loop of `groundup train` on random tokens: what the benchmarks of training measure."""

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.train import OptimConfig, TrainConfig
from groundup.data.dataset import Split
from groundup.data.index import ShardInfo
from groundup.data.loader import TrainBatches
from groundup.data.shards import write_shard
from groundup.distributed.parallel import replicate
from groundup.distributed.ranks import World
from groundup.distributed.signals import StopRequest
from groundup.kernels.training import load_training_kernels
from groundup.loop.micro_batch import estimate, largest_divisor
from groundup.loop.state import TrainState
from groundup.loop.trainer import Trainer
from groundup.model.build import Transformer, build_model
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.optim.average import WeightAverage
from groundup.optim.build import build_optimizers
from groundup.parts.pick_blocks import pick_products
from groundup.parts.swap import use_cpu_parts, use_narrow_stream
from groundup.planner.flops import flops_per_token
from groundup.planner.forecast import USABLE, Hardware
from groundup.planner.memory import Arithmetic, memory_of_run
from groundup.runtime.allocator import allocate_for_steps
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.memory import free_memory
from groundup.runtime.precision import Precision, pick_precision
from groundup.runtime.stored import PlainKernels
from groundup.runtime.threads import take_usual_threads
from groundup.runtime.timing import OPTIMIZER, synchronize

SECONDS = 5.0
"""How long `seconds_per_step` trains."""
MOST_TOKENS = 8192
"""Of a micro-batch of `seconds_per_step`: larger ones compute no faster."""
TOKENS = 1_000_000
"""Random tokens to train on: throughput does not depend on what they say."""


@dataclass(frozen=True, kw_only=True)
class How:
    """What a training loop leaves to choose."""

    compiled: Literal["off", "whole", "parts"] = "off"
    """By torch.compile, in one piece or block by block."""
    recompute: bool = False
    """Compute blocks again going back."""
    narrow_stream: bool = False
    """Let the residual stream have autocast's type."""
    grad_accum_steps: int = 1
    """Forward passes per step."""
    optim: OptimConfig = field(default_factory=OptimConfig)


def random_ids(config: GPTConfig | ModernConfig) -> NDArray[np.integer]:
    """TOKENS ids, the same at every call."""
    return np.random.default_rng(0).integers(config.vocab_size, size=TOKENS)


def our_trainer(
    config: GPTConfig | ModernConfig,
    micro_batch_size: int,
    *,
    device: torch.device,
    precision: Precision,
    how: How | None = None,
    world: World | None = None,
) -> Trainer:
    """A training loop as `groundup train` builds it, of a rank or alone.

    Args:
        config: The model's shape.
        micro_batch_size: Sequences per forward pass of a rank.
        device: Where to compute.
        precision: How.
        how: What else the loop leaves to choose.
        world: The ranks that share a step, by DDP.
    """
    world, how = world or World(), how or How()
    allocate_for_steps(recompute=how.recompute)
    with tempfile.TemporaryDirectory() as folder:
        batches = TrainBatches(
            split_of(random_ids(config), config.vocab_size, Path(folder)),
            block_size=config.block_size,
            micro_batch_size=micro_batch_size,
            seed=0,
            rank=world.rank,
            world_size=world.size,
            pin_memory=device.type == "cuda",
        )
    tokens, model = micro_batch_size * config.block_size, init_weights(build_model(config), seed=0).to(device)
    kernels = load_training_kernels(_silent) if device.type == "cpu" else PlainKernels()
    if device.type == "cpu":
        _use_cpu_parts(model, kernels, half=precision.half, rows=tokens, alone=world.size == 1)
    if how.narrow_stream:
        use_narrow_stream(model)
    model.recompute = how.recompute
    loss_module = _compiled(LossModule(model), how)
    return Trainer(
        model=model,
        loss_module=replicate(loss_module, device) if world.size > 1 else loss_module,
        optimizers=build_optimizers(model, how.optim, device, kernels),
        kernels=kernels,
        average=WeightAverage(model, how.optim.average) if how.optim.average else None,
        batches=batches,
        lr_scale=lambda step: 1.0,
        precision=precision,
        scaler=torch.amp.GradScaler(device.type, enabled=precision.needs_scaler),
        device=device,
        max_steps=1 << 30,
        grad_accum_steps=how.grad_accum_steps,
        tokens_per_step=world.size * how.grad_accum_steps * tokens,
        grad_clip=1.0,
        state=TrainState(),
        stop=StopRequest(),
        world=world,
    )


def _use_cpu_parts(model: Transformer, kernels: PlainKernels, *, half: bool, rows: int, alone: bool) -> None:
    """What a run of this model takes on a CPU."""
    matmul, one_call = pick_products(kernels, model.config, half=half, rows=rows)
    if one_call:
        take_usual_threads(_silent)
    use_cpu_parts(model, matmul, kernels, alone=alone, one_call=one_call)


def _silent(_: str) -> None:
    """Why kernels are missing is told by `groundup doctor`."""


def _compiled(module: LossModule, how: How) -> nn.Module:
    if how.compiled == "parts":
        module.compile_parts()
    return cast("nn.Module", torch.compile(module, dynamic=False)) if how.compiled == "whole" else module


def seconds_per_step(
    config: TrainConfig, shape: GPTConfig | ModernConfig, *, device: torch.device, precision: Precision
) -> float:
    """Seconds of a step of a run on this machine, from the medians of real ones, about five seconds of them.

    Steps of one micro-batch are made, of the size that the run would have; a step of many has as many times their
    forward and backward passes, and their optimizer once. A model that needs longer makes three. The first is left out:
    it draws memory and chooses kernels.
    """
    samples = config.samples_per_process(1)
    size = _micro_batch_size(config, shape, samples, precision)
    how = How(recompute=config.runtime.recompute, optim=config.optim)
    trainer = our_trainer(shape, size, device=device, precision=precision, how=how)
    times: list[float] = []
    updates: list[float] = []
    while len(times) < 4 or (sum(times) < SECONDS and len(times) < 64):
        start = time.perf_counter()
        parts = trainer.train_step().parts
        synchronize(device)
        times.append(time.perf_counter() - start)
        updates.append(parts.get(OPTIMIZER, 0.0))
    whole, update = statistics.median(times[1:]), statistics.median(updates[1:])
    return samples // size * (whole - update) + update


def _micro_batch_size(config: TrainConfig, shape: GPTConfig | ModernConfig, samples: int, precision: Precision) -> int:
    """What the run asks for; for auto as many sequences as fit, but not more than are measured in reasonable time."""
    asked = config.runtime.micro_batch_size
    if asked != "auto":
        return asked
    device, cpu = precision.device, precision.device.type == "cpu"
    kernels, bf16 = _kernels(cpu=cpu)
    need = memory_of_run(config, shape, Arithmetic(half=precision.half, cpu=cpu, kernels=kernels, bf16=bf16))
    most = estimate(need, samples=samples, device=device, parallel="none", world=World())
    return largest_divisor(samples, most=min(most, max(1, MOST_TOKENS // shape.block_size)))


def this_machine(config: TrainConfig, shape: GPTConfig | ModernConfig) -> Hardware:
    """The machine as `planner.forecast` takes it: a few real steps are timed, as the run would make them.

    Args:
        config: Of the run.
        shape: Its model, the vocabulary filled in.
    """
    device = pick_device(config.runtime.device)
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    precision = pick_precision(config.runtime.precision, device, n_embd=config.model.n_embd)
    flops = flops_per_token(shape, shape.block_size) * config.tokens_per_step
    rate = flops / seconds_per_step(config, shape, device=device, precision=precision)
    memory = int(USABLE * free_memory(device))
    cpu = device.type == "cpu"
    kernels, bf16 = _kernels(cpu=cpu)
    name = device_name(device)
    return Hardware(name, 1, precision.name, rate, memory, measured=True, cpu=cpu, kernels=kernels, bf16=bf16)


def _kernels(*, cpu: bool) -> tuple[bool, bool]:
    """Whether there are some, and whether they multiply in bfloat16."""
    if not cpu:
        return False, False
    kernels = load_training_kernels(_silent)
    return kernels.lanes > 0, kernels.has_bf16


def split_of(ids: NDArray[np.integer], vocab_size: int, folder: Path) -> Split:
    """Tokens on disk, as training reads them."""
    fingerprint = "00" * 32
    header = write_shard(folder / "train.bin", ids, vocab_size=vocab_size, fingerprint=fingerprint)
    info = ShardInfo(
        file="train.bin",
        split="train",
        n_tokens=len(ids),
        n_bytes=len(ids),
        n_documents=0,
        max_id=header.max_id,
        sha256=fingerprint,
    )
    return Split(folder, (info,), fingerprint)
