"""What the loop calls: the model with its loss, compiled where that pays, on as many ranks as there are."""

from dataclasses import replace

import torch
from torch import nn

from groundup.config.errors import UsageError
from groundup.distributed.parallel import refuse_different_weights, replicate, shard
from groundup.loop.micro_batch import largest_that_fits
from groundup.model.build import Transformer
from groundup.model.loss import LossModule
from groundup.runtime.compile import Choice, maybe_compile
from groundup.terminal.working import Working
from groundup.training.setup import Setup


def build_loss_module(
    model: Transformer, setup: Setup, *, samples: int, compile_mode: str, max_steps: int, working: Working
) -> tuple[nn.Module, str]:
    """Wrap a model for training.

    Args:
        model: On its device, with its weights. FSDP cuts its parameters in place.
        setup: Where it computes.
        samples: Sequences per step of each rank.
        compile_mode: on, off or auto.
        max_steps: Steps of the run.
        working: Shows that it is being compiled; then why it is or is not.

    Returns:
        A module that maps (idx, targets, tokens) as `LossModule` does, and whether it is compiled: "on" or "off".

    Raises:
        UserError: The ranks do not begin with the same weights, or the compiler fails.
        UsageError: compile_mode is on with FSDP.
    """
    refuse_different_weights(model, setup.world)
    plain = LossModule(model)
    if setup.parallel == "fsdp":
        if compile_mode == "on":
            raise UsageError("--runtime.compile on does not go with --runtime.parallel fsdp; leave it to auto")
        return shard(plain, model.blocks, setup.device, setup.world), "off"

    def micro_step(module: nn.Module) -> None:
        size, block_size = setup.micro_batch_size, model.config.block_size
        _try_micro_step(module, setup, size=size, samples=samples, block_size=block_size)

    def choose(mode: str) -> Choice:
        def doing(what: str, limit: float) -> None:
            working.doing(what, limit=limit)

        return maybe_compile(
            plain,
            mode=mode,
            run=micro_step,
            n_runs=max_steps * (samples // setup.micro_batch_size),
            device=setup.device,
            doing=doing,
        )

    # All ranks must compute alike, and what was measured on one decides for all.
    choice = choose(compile_mode) if setup.world.is_main else None
    compiled = setup.world.broadcast("on" if choice and choice.compiled else "off")
    choice = choice or choose(compiled)
    if choice.note:
        working.say(choice.note)
    module = choice.module
    # Where memory may run out in any backward pass, the trainer exchanges gradients after it.
    replicated = setup.parallel == "ddp" and not setup.shrinks_on_oom
    return replicate(module, setup.device) if replicated else module, compiled


def fit_micro_batch(model: Transformer, setup: Setup, *, samples: int) -> Setup:
    """Where a setup shrinks its micro-batch, try that, and halve it until it runs on every rank.

    Args:
        model: On its device.
        setup: With the size to begin with.
        samples: Sequences per step of each rank.

    Raises:
        UserError: Not even one sequence fits.
    """
    if not setup.shrinks_on_oom:
        return setup
    module = LossModule(model)
    size = largest_that_fits(
        setup.micro_batch_size,
        samples=samples,
        try_out=lambda size: _try_micro_step(
            module, setup, size=size, samples=samples, block_size=model.config.block_size
        ),
        device=setup.device,
        world=setup.world,
    )
    return replace(setup, micro_batch_size=size)


def _try_micro_step(module: nn.Module, setup: Setup, *, size: int, samples: int, block_size: int) -> None:
    """Forward and backward once, without a lasting effect on gradients or on the generators that dropout draws from.

    The step's tokens are those of the run's steps: for another number torch.compile would compile once more.
    """
    idx = torch.zeros((size, block_size), dtype=torch.long, device=setup.device)
    devices = [setup.device] if setup.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), setup.precision.autocast():
            module(idx, idx, samples * block_size).backward()
    finally:
        module.zero_grad(set_to_none=True)
