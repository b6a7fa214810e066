"""The loop. Read `fit`, then `train_step`, then `accumulate`; the rest is for setup, messages and other files.

One optimizer step is: learning rate, micro-steps (forward and backward), clip, check, update. The loss of a step
is the mean over all of its tokens, whatever the number of micro-steps and ranks: all ranks have equally many tokens, so
each takes the mean over its own, and these means are averaged (gradients by DDP or FSDP). Accumulation and parallelism
therefore change the result by rounding alone.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.optim import Optimizer

from groundup.data.noise import with_random_tokens
from groundup.distributed.parallel import is_sharded, sync_gradients, whole, whole_state
from groundup.distributed.ranks import World
from groundup.distributed.signals import StopRequest
from groundup.loop.guard import Guard
from groundup.loop.state import TrainState
from groundup.loop.step_error import step_error
from groundup.model.build import Transformer, build_model
from groundup.optim.average import WeightAverage
from groundup.optim.build import set_lr
from groundup.optim.lazy import gradient_values
from groundup.runtime.precision import Precision
from groundup.runtime.stored import PlainKernels
from groundup.runtime.timing import DATA, FORWARD_BACKWARD, OPTIMIZER, StepClock


class Batches(Protocol):
    """A source of micro-batches: `data.loader.TrainBatches`, or one of a test."""

    def next_batch(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """Ids and the ids that follow them."""

    def fetch_ahead(self) -> None:
        """Prefetch what `next_batch` will return."""

    def restart(self, consumed: int, *, micro_batch_size: int | None = None) -> None:
        """Continue after `consumed` samples of all ranks, with micro-batches of another size."""


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """The metrics of one step. The tensors stay on the device until they are logged."""

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
    """What the user should know about this step."""


class Callback:
    """Acts between steps, and leaves weights, optimizer and data alone. `training.between_steps` lists all of a run."""

    def on_fit_start(self, trainer: "Trainer") -> None:
        """Before the first step of this session."""

    def on_step_end(self, trainer: "Trainer", metrics: StepMetrics) -> None:
        """After each step; `trainer.state` already counts it."""

    def on_fit_end(self, trainer: "Trainer") -> None:
        """After the last step, also when a signal ended the run."""


@dataclass(slots=True)
class Trainer:
    """A model, its data and optimizers, and the steps of training. Built by `training.build`."""

    model: Transformer
    """The bare model, for evaluation, sampling and saving."""
    loss_module: nn.Module
    """Maps (idx, targets, tokens) as `LossModule` does; the compiled or wrapped form of the same model."""
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
    """Sets what has a schedule of its own in Muon, at a step."""
    average: WeightAverage | None = None
    """Evaluated and saved in place of the weights, if there is one."""
    replace_tokens: float = 0.0
    """Share of the input tokens that are replaced by random ones."""
    world: World = field(default_factory=World)
    """The ranks that share each step; alone by default."""
    guard: Guard = field(default_factory=Guard)
    """Decides whether a step changes the weights."""
    gradients: Callable[["Trainer"], Tensor] = lambda trainer: trainer.accumulate()
    """Leaves the gradients of a step in the parameters and returns this rank's loss: `accumulate`, or one of
    `loop.retry`, which know what to do when memory runs out."""
    kernels: PlainKernels = field(default_factory=PlainKernels)
    """Measure the gradient on a CPU."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about the step that is being made."""
    moved: bool = field(default=False, init=False)
    """Whether a step of this session has changed the weights."""
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

        own_loss = self.gradients(self)  # `accumulate`, below

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
        self.moved |= act == "go"
        self.scaler.update()
        if self.average is not None and act == "go":
            self.average.update(self.state.step)
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
        """Forward and backward over this rank's tokens, micro-step by micro-step; returns their mean loss."""
        losses = []
        for micro_step in range(self.grad_accum_steps):
            idx, targets = self.batches.next_batch()
            idx, targets = idx.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True)
            if self.replace_tokens:
                idx = with_random_tokens(idx, self.replace_tokens, self.model.config.vocab_size)
            self.clock.lap(DATA)
            with sync_gradients(self.loss_module, last=micro_step == self.grad_accum_steps - 1):
                with self.precision.autocast():
                    micro_loss = self.loss_module(idx, targets, self.tokens_per_step // self.world.size)
                self.scaler.scale(micro_loss).backward()
            losses.append(micro_loss.detach())
            self.clock.lap(FORWARD_BACKWARD)
            self.batches.fetch_ahead()  # while a GPU is still computing
        self.clock.lap(DATA)
        first, *others = losses
        return sum(others, first)

    def _clip_gradients(self) -> Tensor:
        """Scale the gradient down to a norm of grad_clip, unless it is not finite; returns the norm before that."""
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        gradients = [g for group in groups for p in group["params"] if (g := gradient_values(p)) is not None]
        norm = whole(self.kernels.length(gradients))
        # On a GPU the host would have to wait to see whether there is something to scale.
        small = norm.device.type == "cpu" and norm.item() + 1e-6 <= self.grad_clip
        if self.grad_clip and not small:
            finite = norm.nan_to_num(nan=0.0, posinf=0.0)
            torch._foreach_mul_(gradients, (self.grad_clip / (finite + 1e-6)).clamp(max=1.0))
        return norm

    def _judge(self, loss: float, grad_norm: float, own_loss: Tensor) -> str:
        """Ask the guard: "go" or "skip", the same on all ranks.

        Raises:
            UserError: It says "stop".
        """
        decision = self.guard.judge(loss, grad_norm, scaled=self.scaler.is_enabled())
        step = self.state.step + 1
        # Where to look for a fault in the data.
        samples = f"samples {self.first_sample} to {self.first_sample + self.samples_per_step - 1}"
        if decision.act == "stop":
            raise step_error(
                decision,
                step=step,
                samples=samples,
                own_loss=own_loss,
                model=self.model,
                optimizers=self.optimizers,
                world=self.world,
                moved=self.moved,
            )
        if decision.reason:
            done = ", skipped" if decision.act == "skip" else ""
            self.notes.append(f"step {step}: {decision.reason}{done} ({samples})")
        return decision.act

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
        """Samples of the stream before those of this step."""
        return self.state.tokens_seen // self.model.config.block_size

    def shown(self) -> AbstractContextManager[None]:
        """Within this context, the model has the weights to evaluate and save: the average, where there is one."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def whole_model(self) -> Transformer | None:
        """A whole model for rank 0 to compute with; None on the other ranks. All ranks must call it."""
        if not is_sharded(self.model):
            return self.model if self.world.is_main else None
        weights = whole_state(self.model.state_dict(), keep=self.world.is_main)
        if not self.world.is_main:
            return None
        model = build_model(self.model.config).to(self.device)
        model.load_state_dict(weights)
        return model
