"""The loop. Read `fit`, then `train_step`, then `accumulate`; everything else is setting up and messages.

One optimizer step is: learning rate, micro-steps (forward and backward), clip, check, update. The loss of a step
is the mean over all of its tokens, whatever the number of micro-steps and of ranks: each rank takes the mean over its
own tokens, of which all have as many, and ranks are averaged (gradients by DDP or FSDP). So neither accumulation nor
parallelism changes the result.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim import Optimizer

from groundup.config.errors import UserError
from groundup.data.noise import with_random_tokens
from groundup.distributed.parallel import is_sharded, sync_gradients, whole, whole_state
from groundup.distributed.ranks import World
from groundup.distributed.signals import StopRequest
from groundup.loop.guard import Decision, Guard
from groundup.loop.state import TrainState
from groundup.model.build import Transformer, build_model
from groundup.optim.average import WeightAverage
from groundup.optim.build import rate_flags, set_lr
from groundup.runtime.precision import Precision
from groundup.runtime.timing import DATA, FORWARD_BACKWARD, OPTIMIZER, StepClock


class Batches(Protocol):
    """Where micro-batches come from."""

    def next_batch(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Ids and the ids that follow them."""

    def fetch_ahead(self) -> None:
        """Get ready what `next_batch` will return."""

    def restart(self, consumed: int, *, micro_batch_size: int | None = None) -> None:
        """Go on after so many samples of all ranks, by micro-batches of another size."""


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
    """Seconds by part (`runtime.timing`); on a GPU those that have become known during this step."""
    notes: tuple[str, ...] = ()
    """What a person should know of this step."""


class Callback:
    """Acts between steps, and never changes the numbers of a run. `training.between_steps` says which, and when."""

    def on_fit_start(self, trainer: "Trainer") -> None:
        """Before the first step of this session."""

    def on_step_end(self, trainer: "Trainer", metrics: StepMetrics) -> None:
        """After each step; `trainer.state` already counts it."""

    def on_fit_end(self, trainer: "Trainer") -> None:
        """After the last step, also when a signal ended the run."""


@dataclass(slots=True)
class Trainer:
    """A model, what to teach it with, and how. Built by `training.build`."""

    model: Transformer
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
    set_muon: Callable[[list[Optimizer], int], None] = lambda optimizers, step: None
    """Sets what of Muon does not follow `lr_scale` at a step."""
    average: WeightAverage | None = None
    """What is evaluated and kept in place of the weights, if there is one."""
    replace_tokens: float = 0.0
    """Share of the input tokens that are replaced by random ones."""
    world: World = field(default_factory=World)
    """The ranks that share each step; alone by default."""
    guard: Guard = field(default_factory=Guard)
    """Decides whether a step changes the weights."""
    gradients: Callable[["Trainer"], Tensor] = lambda trainer: trainer.accumulate()
    """Leaves the gradients of a step in the parameters and returns this rank's loss: `accumulate`, or one of
    `loop.retry`, which know what to do when memory runs out."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of the step that is being made."""
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

    def train_step(self) -> StepMetrics:
        """Make one optimizer step.

        Raises:
            UserError: The guard stops the run, or memory does not suffice; no weight has changed.
        """
        start = time.perf_counter()
        self.clock.start()
        lr_scale = self.lr_scale(self.state.step)
        set_lr(self.optimizers, lr_scale)
        self.set_muon(self.optimizers, self.state.step)

        own_loss = self.gradients(self)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        own_norm = self._clip_gradients()
        # One exchange and one wait for the device: the guards of all ranks see the same two numbers.
        both = self.world.mean(torch.stack([own_loss, own_norm]))
        loss, grad_norm = both.tolist()
        act = self._judge(loss, grad_norm, own_loss)
        for optimizer in self.optimizers:
            if act == "go":
                self.scaler.step(optimizer)
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None and act == "go":
            self.average.update(self.state.step)
        self.scaler.update()
        self.clock.lap(OPTIMIZER)

        seconds = time.perf_counter() - start
        self.state.step += 1
        self.state.tokens_seen += self.tokens_per_step
        self.state.seconds += seconds
        if act == "skip":
            self.state.skipped_steps += 1
        notes, self.notes = tuple(self.notes), []
        return StepMetrics(both[0], both[1], lr_scale, seconds, self.clock.take(), notes)

    def accumulate(self) -> Tensor:
        """Forward and backward over this rank's tokens; returns their mean loss."""
        loss = torch.zeros((), device=self.device)
        for micro_step in range(self.grad_accum_steps):
            idx, targets = self.batches.next_batch()
            idx, targets = idx.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
            if self.replace_tokens:
                idx = with_random_tokens(idx, self.replace_tokens, self.model.config.vocab_size)
            self.clock.lap(DATA)
            with sync_gradients(self.loss_module, last=micro_step == self.grad_accum_steps - 1):
                with self.precision.autocast():
                    micro_loss = self.loss_module(idx, targets) / (self.tokens_per_step // self.world.size)
                self.scaler.scale(micro_loss).backward()
            loss += micro_loss.detach()
            self.clock.lap(FORWARD_BACKWARD)
            self.batches.fetch_ahead()  # a GPU is still computing
        self.clock.lap(DATA)
        return loss

    def shown(self) -> AbstractContextManager[None]:
        """In this context the model has the weights that are evaluated and kept: the average, where there is one."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def whole_model(self) -> Transformer | None:
        """A model that rank 0 can compute with alone; None on the others. All ranks must call it."""
        if not is_sharded(self.model):
            return self.model if self.world.is_main else None
        weights = whole_state(self.model.state_dict(), keep=self.world.is_main)
        if not self.world.is_main:
            return None
        model = build_model(self.model.config).to(self.device)
        model.load_state_dict(weights)
        return model

    def _clip_gradients(self) -> Tensor:
        """Scale the gradient down to grad_clip; returns its norm before. One that is not finite is left as it is."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        if self.grad_clip:
            finite = norm.nan_to_num(nan=0.0, posinf=0.0)
            nn.utils.clip_grads_with_norm_(parameters, self.grad_clip, finite)
        return norm

    @property
    def finished(self) -> bool:
        """Whether there is no step left to make, now or because of a stop request."""
        return self.state.step >= self.max_steps or self.stop.requested

    @property
    def samples_per_step(self) -> int:
        """Sequences per step, over all ranks."""
        return self.tokens_per_step // self.model.config.block_size

    @property
    def micro_batch_size(self) -> int:
        """Sequences per forward pass of one rank."""
        return self.samples_per_step // self.world.size // self.grad_accum_steps

    @property
    def first_sample(self) -> int:
        """Samples of the stream before those of the next step."""
        return self.state.tokens_seen // self.model.config.block_size

    def _judge(self, loss: float, grad_norm: float, own_loss: Tensor) -> str:
        """Ask the guard: go or skip, the same on all ranks; a stop ends the run here."""
        verdict = self.guard.judge(loss, grad_norm, scaled=self.scaler.is_enabled())
        # Where to look for what is wrong with the data.
        place = f"samples {self.first_sample} to {self.first_sample + self.samples_per_step - 1}"
        if verdict.act == "stop":
            self._refuse(verdict, place, own_loss)
        if verdict.reason:
            done = ", skipped" if verdict.act == "skip" else ""
            self.notes.append(f"step {self.state.step + 1}: {verdict.reason}{done} ({place})")
        return verdict.act

    def _refuse(self, verdict: Decision, place: str, own_loss: Tensor) -> NoReturn:
        """Stop before the weights change, on every rank; name what can be named."""
        losses = self.world.gather(own_loss.cpu())
        ranks = [str(rank) for rank, own in enumerate(losses) if not own.isfinite()] if len(losses) > 1 else []
        culprit = next((name for name, p in self.model.named_parameters() if not _is_finite(p.grad)), None)
        where = [
            *([f"on rank {', '.join(ranks)}"] if ranks else []),
            *([f"first in {culprit}"] if culprit else []),
            place,
        ]
        skip = f"; or go on from the last checkpoint with --resume and {verdict.flag}" if verdict.flag else ""
        raise UserError(
            f"step {self.state.step + 1}: {verdict.reason} ({'; '.join(where)}); the weights are those of the step"
            f" before. Begin again with a lower {rate_flags(self.optimizers)} or more --optim.warmup-steps{skip}"
        )


def _is_finite(gradient: Tensor | None) -> bool:
    """Whether a gradient has no NaN and no infinity; all ranks must call it."""
    return gradient is None or bool(whole(gradient).isfinite().all())
