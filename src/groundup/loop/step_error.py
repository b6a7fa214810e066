"""The message of a step that stops the run: what is wrong, where, and what to do."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from groundup.config.errors import UserError
from groundup.distributed.parallel import whole
from groundup.distributed.ranks import World
from groundup.loop.guard import Decision
from groundup.optim.build import rate_flags
from groundup.optim.lazy import gradient_values


def step_error(
    decision: Decision,
    *,
    step: int,
    samples: str,
    own_loss: Tensor,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    world: World,
    moved: bool,
) -> UserError:
    """The error of a step whose weights must not be used. All ranks must call it.

    Args:
        decision: The guard's.
        step: Number of the step, from 1.
        samples: Which ones it was made from.
        own_loss: This rank's mean loss.
        model: With the gradients of the step.
        optimizers: Their flags are in the advice.
        world: The ranks.
        moved: Whether a step of this session has changed the weights: else no rate is to blame for a gradient.
    """
    losses = world.gather(own_loss.cpu())
    ranks = [str(rank) for rank, loss in enumerate(losses) if not loss.isfinite()]
    first = next((name for name, p in model.named_parameters() if not _is_finite(gradient_values(p))), None)
    on_ranks = [f"on rank {', '.join(ranks)}"] if ranks and len(losses) > 1 else []
    where = "; ".join([*on_ranks, *([f"first in {first}"] if first else []), samples])
    if first and not ranks and not moved:
        advice = (
            "No step of this session has changed them, so its rate is not the cause: try --runtime.precision fp32 or,"
            " where it was that, --runtime.matmul default"
        )
    else:
        skip = f"; or, where a checkpoint was saved, go on with --resume and {decision.flag}" if decision.flag else ""
        advice = f"Begin again with a lower {rate_flags(optimizers)} or more --optim.warmup-steps{skip}"
    return UserError(f"step {step}: {decision.reason} ({where}); the weights are those of the step before. {advice}")


def _is_finite(gradient: torch.Tensor | None) -> bool:
    """Whether a gradient has no NaN and no infinity; all ranks must call it."""
    return gradient is None or bool(whole(gradient).isfinite().all())
