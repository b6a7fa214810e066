"""What the loop calls: the model with its loss, compiled where that pays, on as many ranks as there are."""

from dataclasses import dataclass

import torch
from rich.console import Console
from torch import nn

from groundup.config.errors import UsageError
from groundup.model.gpt import GPT
from groundup.model.loss import LossModule
from groundup.runtime.compile import Choice, maybe_compile
from groundup.runtime.distributed import World
from groundup.runtime.parallel import refuse_different_weights, replicate, shard
from groundup.runtime.precision import Precision
from groundup.runtime.products import Products, WithOneDNN


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and how a run computes; `auto` is resolved."""

    device: torch.device
    precision: Precision
    products: Products
    world: World
    parallel: str
    """none, ddp or fsdp."""


def build_loss_module(
    model: GPT, machine: Machine, *, micro_batch_size: int, compile_mode: str, n_runs: int, console: Console
) -> tuple[nn.Module, str]:
    """Wrap a model for training.

    Args:
        model: On its device, with its weights. FSDP cuts its parameters in place.
        machine: Where it computes.
        micro_batch_size: Sequences per forward pass.
        compile_mode: on, off or auto.
        n_runs: Forward passes of the whole run.
        console: Told why a model is or is not compiled.

    Returns:
        A module that maps (idx, targets) to the summed loss, and whether it is compiled: "on" or "off".

    Raises:
        UserError: The ranks do not begin with the same weights, or the compiler fails.
        UsageError: compile_mode is on with FSDP.
    """
    refuse_different_weights(model, machine.world)
    plain = LossModule(model)
    if machine.parallel == "fsdp":
        if compile_mode == "on":
            raise UsageError("--runtime.compile on does not go with --runtime.parallel fsdp; leave it to auto")
        return shard(plain, model.h, machine.device, machine.world), "off"
    eager = WithOneDNN(plain) if machine.products == "onednn" else plain
    batch = (micro_batch_size, model.config.block_size)
    idx = torch.zeros(batch, dtype=torch.long, device=machine.device)

    def micro_step(module: nn.Module) -> None:
        # Trying must not move the generators that dropout draws from.
        devices = [machine.device] if machine.device.type == "cuda" else []
        with torch.random.fork_rng(devices), machine.precision.autocast():
            module(idx, idx).backward()
        model.zero_grad(set_to_none=True)

    def choose(mode: str) -> Choice:
        return maybe_compile(plain, eager=eager, mode=mode, run=micro_step, n_runs=n_runs, device=machine.device)

    # All ranks must compute alike, and what was measured on one decides for all.
    choice = choose(compile_mode) if machine.world.is_main else None
    compiled = machine.world.broadcast("on" if choice and choice.compiled else "off")
    choice = choice or choose(compiled)
    if choice.note:
        console.print(choice.note, highlight=False)
    module = choice.module
    return replicate(module, machine.device) if machine.parallel == "ddp" else module, compiled
