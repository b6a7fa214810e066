"""Where and how a run computes: everything that the config leaves to the machine, resolved once."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig
from groundup.config.train import TrainConfig
from groundup.distributed.ranks import World
from groundup.runtime.allocator import keep_freed_memory
from groundup.runtime.device import pick_device
from groundup.runtime.matmul import Matmul, pick_matmul
from groundup.runtime.precision import Precision, pick_precision
from groundup.training.micro_batch import estimate


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how a run computes; `auto` is resolved."""

    device: torch.device
    precision: Precision
    matmul: Matmul
    world: World
    parallel: str
    """none, ddp or fsdp."""
    micro_batch_size: int
    """Sequences per forward pass of one rank."""
    halves: bool
    """Whether it shrinks when memory runs out."""


def pick_machine(config: TrainConfig, saved: dict[str, Any], shape: GPTConfig, world: World, parallel: str) -> Machine:
    """Pick device, threads and precision: those the run began with, where it is resumed."""
    if parallel == "fsdp" and config.lora.rank:
        raise UsageError("lora needs no fsdp: its optimizer state is small; use --runtime.parallel ddp")
    if parallel == "fsdp" and config.optim.name == "muon":
        raise UsageError(
            "muon turns whole matrices, of which fsdp leaves each rank a part; use --runtime.parallel ddp or"
            " --optim.name adamw"
        )
    device = pick_device(config.runtime.device)
    threads = config.runtime.threads
    if saved.get("processes", 1) == world.size:  # else the cores are shared by more or fewer than before
        threads = saved.get("threads", threads)
    if threads:
        torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_freed_memory()
    precision = pick_precision(saved.get("precision", config.runtime.precision), device, n_embd=shape.n_embd)
    if world.size > 1:  # auto measures on a CPU, and all ranks must compute alike
        precision = pick_precision(world.broadcast(precision.name), device, n_embd=shape.n_embd)
    size = _micro_batch_size(config, saved, shape, precision, world, parallel)
    matmul = _matmul(config, saved, shape, precision, world, parallel, rows=size * shape.block_size)
    halves = config.runtime.micro_batch_size == "auto" and parallel != "fsdp"
    return Machine(device, precision, matmul, world, parallel, size, halves)


def _micro_batch_size(
    config: TrainConfig, saved: dict[str, Any], shape: GPTConfig, precision: Precision, world: World, parallel: str
) -> int:
    """What is asked for; with auto what the run has learned, or else the planner's estimate."""
    asked = config.runtime.micro_batch_size
    if asked != "auto":
        return asked
    if saved.get("processes") == world.size and "micro_batch_size" in saved:
        return int(saved["micro_batch_size"])
    return estimate(
        shape,
        samples=config.samples_per_process(world.size),
        precision=precision,
        recompute=config.runtime.recompute,
        parallel=parallel,
        world=world,
    )


def _matmul(
    config: TrainConfig,
    saved: dict[str, Any],
    shape: GPTConfig,
    precision: Precision,
    world: World,
    parallel: str,
    *,
    rows: int,
) -> Matmul:
    """Who multiplies: what the run began with, what is asked for, or what measures faster on the main rank."""
    asked: Literal["auto", "default", "onednn"] = saved.get("matmul", config.runtime.matmul)
    if asked != "auto":
        return asked
    if precision.name != "fp32" or parallel == "fsdp":  # oneDNN already multiplies 16 bits; FSDP's tensors are not ours
        return "default"
    return world.broadcast(pick_matmul(precision.device, rows=rows, n_embd=shape.n_embd, training=True))


def describe_machine(machine: Machine) -> dict[str, Any]:
    """What `auto` became."""
    return {
        "device": machine.device.type,
        "precision": machine.precision.name,
        "matmul": machine.matmul,
        "parallel": machine.parallel,
        "processes": machine.world.size,
        "micro_batch_size": machine.micro_batch_size,
        "threads": torch.get_num_threads(),
    }
