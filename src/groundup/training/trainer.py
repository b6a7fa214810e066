"""The loop. Read `fit`, then `train_step`; everything else is setting up and looking on.

One optimizer step is: learning rate, micro-steps (forward and backward), clip, check, update. The loss of a step
is the mean over all of its tokens, whatever the number of micro-steps and of ranks: each rank takes the mean over its
own tokens, of which all have as many, and ranks are averaged (gradients by DDP or FSDP). So neither accumulation nor
parallelism changes the result.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim import Optimizer

from groundup.config.errors import UserError
from groundup.model.gpt import GPT
from groundup.optim.build import set_lr
from groundup.runtime.distributed import World
from groundup.runtime.parallel import sync_gradients, whole
from groundup.runtime.precision import Precision
from groundup.training.signals import StopRequest
from groundup.training.state import TrainState
from groundup.training.timing import DATA, FORWARD_BACKWARD, OPTIMIZER, StepClock


class Batches(Protocol):
    """Where micro-batches come from."""

    def next_batch(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Ids and the ids that follow them."""


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """What one step did. The tensors stay on the device until somebody logs them."""

    loss: Tensor
    """Mean loss over the tokens of the step, of all ranks, in nats; a scalar."""
    grad_norm: Tensor
    """Norm of the whole gradient before clipping; a scalar."""
    lr_scale: float
    """Share of the peak learning rate."""
    seconds: float
    """Wall time of the step."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds by part (`training.timing`); on a GPU those that have become known during this step."""


class Callback(Protocol):
    """Looks on, and acts between steps. A callback never changes the numbers of a run."""

    def on_fit_start(self, trainer: "Trainer") -> None:
        """Before the first step."""

    def on_step_end(self, trainer: "Trainer", metrics: StepMetrics) -> None:
        """After each step; `trainer.state` already counts it."""

    def on_fit_end(self, trainer: "Trainer") -> None:
        """After the last step, also when a signal ended the run."""


@dataclass(slots=True)
class Trainer:
    """A model, what to teach it with, and how. Built by `training.build`."""

    model: GPT
    """The bare model, for evaluation, sampling and saving."""
    loss_module: nn.Module
    """Maps (idx, targets) to the summed loss; the compiled or wrapped form of the same model."""
    optimizers: list[Optimizer]
    batches: Batches
    lr_scale: Callable[[int], float]
    """Step to share of the peak learning rate."""
    precision: Precision
    scaler: torch.amp.GradScaler
    device: torch.device
    max_steps: int
    grad_accum_steps: int
    tokens_per_step: int
    """Over all ranks."""
    grad_clip: float
    state: TrainState
    stop: StopRequest
    callbacks: Sequence[Callback] = ()
    world: World = field(default_factory=World)
    """The ranks that share each step; alone by default."""
    clock: StepClock = field(init=False)

    def __post_init__(self) -> None:
        """Measure on the device that computes."""
        self.clock = StepClock(self.device)

    def fit(self) -> None:
        """Train until max_steps, or until a signal asks to stop."""
        self.model.train()
        for callback in self.callbacks:
            callback.on_fit_start(self)
        while not self.finished:
            metrics = self.train_step()
            self.stop.agree(self.world)
            for callback in self.callbacks:
                callback.on_step_end(self, metrics)
        for callback in self.callbacks:
            callback.on_fit_end(self)

    @property
    def finished(self) -> bool:
        """Whether there is no step left to make, now or because of a stop request."""
        return self.state.step >= self.max_steps or self.stop.requested

    def train_step(self) -> StepMetrics:
        """Make one optimizer step.

        Raises:
            UserError: The loss or the gradient is not finite; no weight has changed.
        """
        start = time.perf_counter()
        self.clock.start()
        lr_scale = self.lr_scale(self.state.step)
        set_lr(self.optimizers, lr_scale)

        loss = torch.zeros((), device=self.device)
        for micro_step in range(self.grad_accum_steps):
            idx, targets = self.batches.next_batch()
            idx, targets = idx.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
            self.clock.lap(DATA)
            with sync_gradients(self.loss_module, last=micro_step == self.grad_accum_steps - 1):
                with self.precision.autocast():
                    micro_loss = self.loss_module(idx, targets) / (self.tokens_per_step // self.world.size)
                self.scaler.scale(micro_loss).backward()
            loss += micro_loss.detach()
            self.clock.lap(FORWARD_BACKWARD)

        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        grad_norm = self._clip()
        own_loss = loss.clone()
        self.world.mean(loss)
        self._refuse_nonfinite(loss, grad_norm, own_loss)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self._update_scale()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.clock.lap(OPTIMIZER)

        seconds = time.perf_counter() - start
        self.state.step += 1
        self.state.tokens_seen += self.tokens_per_step
        self.state.seconds += seconds
        return StepMetrics(loss, grad_norm, lr_scale, seconds, self.clock.take())

    def _clip(self) -> Tensor:
        """Scale the gradient down to grad_clip; returns its norm before."""
        limit = self.grad_clip or math.inf
        return whole(nn.utils.clip_grad_norm_(self.model.parameters(), limit))

    def _refuse_nonfinite(self, loss: Tensor, grad_norm: Tensor, own_loss: Tensor) -> None:
        """Stop before a NaN reaches the weights: one synchronization a step, none a micro-step.

        Loss and gradient are means over the ranks, so a NaN of one rank is everybody's, and all stop here together.
        An infinite fp16 gradient under a finite loss is only a scale that is too large; the scaler skips the step.
        """
        checked = loss if self.scaler.is_enabled() else loss + grad_norm
        if math.isfinite(checked.item()):
            return
        culprits = [
            name
            for name, p in self.model.named_parameters()
            if p.grad is not None and not whole(p.grad).isfinite().all()
        ]
        losses = self.world.gather(own_loss.cpu())
        ranks = [str(rank) for rank, own in enumerate(losses) if not own.isfinite()] if len(losses) > 1 else []
        raise UserError(
            f"step {self.state.step + 1}: the loss is {loss.item():.4g}"
            + (f" (on rank {', '.join(ranks)})" if ranks else "")
            + f" and the gradient norm {grad_norm.item():.4g}"
            + (f" (first in {culprits[0]})" if culprits else "")
            + "; the weights are those of the step before. Lower optim.lr, lengthen optim.warmup_steps,"
            " or resume from the last checkpoint"
        )

    def _update_scale(self) -> None:
        """Let the fp16 scale grow or shrink, and count the steps it threw away."""
        if self.scaler.is_enabled():
            before = self.scaler.get_scale()
            self.scaler.update()
            self.state.skipped_steps += self.scaler.get_scale() < before
