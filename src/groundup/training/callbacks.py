"""What a run does between its steps. `training.between_steps` says which of these, and when each is due.

Every rank has the same callbacks, and they meet where a number or a tensor of all is needed; the logs and displays of
ranks other than 0 say nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from groundup.checkpoint.state import CheckpointStore, Contents
from groundup.distributed.parallel import is_sharded, refuse_different_weights
from groundup.distributed.ranks import World
from groundup.evaluation.benchmarks import measure_choices
from groundup.evaluation.examples import ChoiceExample
from groundup.evaluation.loss import LossResult
from groundup.generation.text import TextGenerator
from groundup.records.display import Display
from groundup.tokenizer.base import Tokenizer
from groundup.training.loggers import Logger
from groundup.training.snapshot import save_together, whole_model
from groundup.training.trainer import Callback, StepMetrics, Trainer


@dataclass(frozen=True, slots=True)
class Every:
    """Which steps something is due after: each n-th, and those named besides."""

    n: int
    """0 is none."""
    first: int | None = None
    """One step more: 0 is before the first step, 1 after it."""
    last: bool = False
    """Whether the last step of the run is due. It is due for this reason only, whatever its number."""

    def __call__(self, trainer: Trainer) -> bool:
        """Whether it is due after the step that the trainer has made."""
        step = trainer.state.step
        if step >= trainer.max_steps:
            return self.last
        return step == self.first or (step > 0 and self.n > 0 and step % self.n == 0)


class LogMetrics(Callback):
    """Write and show the numbers of a step, and the speed since the last such line.

    Args:
        when: Lines are due. One more is written where a session ends between two.
        log: Where lines go.
        display: What the person sees.
        lr: Peak learning rate.
        flops_per_token: For MFU.
        peak_flops: FLOP/s the machine can do at best; None leaves MFU out.
    """

    def __init__(
        self,
        *,
        when: Every,
        log: Logger,
        display: Display,
        lr: float,
        flops_per_token: float,
        peak_flops: float | None,
    ) -> None:
        self.when, self.log, self.display, self.lr = when, log, display, lr
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self._seconds = 0.0
        self._steps = 0
        self._parts: dict[str, float] = {}

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Add up times, and write a line when it is due; tell at once what must be known of a step."""
        for note in metrics.notes:
            self.log.write(step=trainer.state.step, event=note)
            self.display.say(note)
        self._seconds += metrics.seconds
        self._steps += 1
        for part, seconds in metrics.parts.items():
            self._parts[part] = self._parts.get(part, 0.0) + seconds
        if self.when(trainer) or trainer.finished:
            self._write(trainer, metrics)

    def _write(self, trainer: Trainer, metrics: StepMetrics) -> None:
        state = trainer.state
        speed = self._steps * trainer.tokens_per_step / self._seconds
        mfu = speed * self.flops_per_token / self.peak_flops if self.peak_flops else None
        left = (trainer.max_steps - state.step) * self._seconds / self._steps
        parts = {f"perf/{part}_ms": round(1e3 * s / self._steps, 3) for part, s in self._parts.items()}
        self._seconds, self._steps, self._parts = 0.0, 0, {}
        loss = metrics.loss.item()
        values: dict[str, Any] = {
            "step": state.step,
            "tokens": state.tokens_seen,
            "seconds": round(state.seconds, 3),
            "train/loss": loss,
            "optim/lr": metrics.lr_scale * self.lr,
            "optim/grad_norm": metrics.grad_norm.item(),
            "perf/tokens_per_sec": round(speed, 1),
        }
        if mfu is not None:
            values["perf/mfu"] = round(mfu, 4)
        if state.skipped_steps:
            values["optim/skipped_steps"] = state.skipped_steps
        self.log.write(**values, **parts)
        self.display.update(step=state.step, loss=loss, tokens_per_sec=speed, mfu=mfu, left=left)


class Evaluate(Callback):
    """Measure the validation loss, and remember the best.

    Args:
        measure: Returns the loss over the validation split.
        when: It is due; before the first step it is ln(vocab_size), when a model of random weights starts right.
        from_start: Whether the weights before the first step may be the best: those of a trained model may.
        log: Where results go.
        display: What the person sees.
    """

    def __init__(
        self, *, measure: Callable[[], LossResult], when: Every, from_start: bool, log: Logger, display: Display
    ) -> None:
        self.measure, self.when, self.from_start, self.log, self.display = measure, when, from_start, log, display

    def on_fit_start(self, trainer: Trainer) -> None:
        """Only before the first step of the run: a resumed one has been evaluated where it stopped."""
        if trainer.state.step == 0 and self.when(trainer):
            self._evaluate(trainer)

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Evaluate when it is due."""
        if self.when(trainer):
            self._evaluate(trainer)

    def _evaluate(self, trainer: Trainer) -> None:
        state = trainer.state
        start = time.perf_counter()
        result = self.measure()
        if result.loss < state.best_loss and (state.step > 0 or self.from_start):
            state.best_loss, state.best_step = result.loss, state.step
        self.log.write(
            step=state.step,
            tokens=state.tokens_seen,
            seconds=round(state.seconds, 3),
            **{
                "val/loss": result.loss,
                "val/perplexity": result.perplexity,
                "val/bpb": result.bits_per_byte,
                "perf/eval_seconds": round(time.perf_counter() - start, 3),
            },
        )
        self.display.say(
            f"step {state.step}: validation loss {result.loss:.4f} · {result.bits_per_byte:.3f} bits per byte"
        )


class HellaSwag(Callback):
    """Let the model choose endings.

    The ranks share the examples; a model whose parameters are shared out is put together and measured on rank 0. It is
    the model itself that is asked, never its compiled form: shapes change from batch to batch.

    Args:
        examples: The questions.
        when: They are asked.
        log: Where results go.
        display: What the person sees.
    """

    def __init__(self, *, examples: Sequence[ChoiceExample], when: Every, log: Logger, display: Display) -> None:
        self.examples, self.when, self.log, self.display = examples, when, log, display

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Measure when it is due."""
        if not self.when(trainer):
            return
        start = time.perf_counter()
        sharded = is_sharded(trainer.model)
        model = whole_model(trainer) if sharded else trainer.model
        if model is None:
            return
        with trainer.precision.autocast():
            result = measure_choices(model, self.examples, world=World() if sharded else trainer.world)
        step, seconds = trainer.state.step, time.perf_counter() - start
        self.log.write(
            step=step,
            tokens=trainer.state.tokens_seen,
            seconds=round(trainer.state.seconds, 3),
            **{
                "hellaswag/acc": result.acc,
                "hellaswag/acc_norm": result.acc_norm,
                "perf/hellaswag_seconds": round(seconds, 3),
            },
        )
        self.display.say(f"step {step}: HellaSwag {result.acc:.4f}, by tokens {result.acc_norm:.4f}")


class Sample(Callback):
    """Let the model speak.

    Args:
        tokenizer: The model's.
        prompt: What it continues.
        when: It speaks, unless a signal asks to stop.
        max_new_tokens: Length of a sample.
        seed: The same for every sample, so that only the model differs.
        log: Where samples go.
        display: What the person sees.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        prompt: str,
        when: Every,
        max_new_tokens: int,
        seed: int,
        log: Logger,
        display: Display,
    ) -> None:
        self.tokenizer, self.prompt, self.when = tokenizer, prompt, when
        self.max_new_tokens, self.seed, self.log, self.display = max_new_tokens, seed, log, display

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Draw one sample, log it and show it; rank 0 speaks for all."""
        if trainer.finished or not self.when(trainer):
            return
        model = whole_model(trainer)
        if model is None:
            return
        model.eval()
        try:
            generator = TextGenerator(model, self.tokenizer)
            text = generator.generate(self.prompt, max_new_tokens=self.max_new_tokens, seed=self.seed)[0]
        finally:
            model.train()
        self.log.write(step=trainer.state.step, sample=self.prompt + text)
        self.display.quote(self.prompt + text)


class CompareWeights(Callback):
    """See to it that replicas are replicas: when they begin, and when it is due. What is saved is always compared.

    Args:
        when: They are compared.
    """

    def __init__(self, *, when: Every) -> None:
        self.when = when

    def on_fit_start(self, trainer: Trainer) -> None:
        """What is built or restored begins with the same weights."""
        refuse_different_weights(trainer.model, trainer.world)

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Compare when it is due."""
        if self.when(trainer):
            refuse_different_weights(trainer.model, trainer.world)


class SaveCheckpoints(Callback):
    """Save when it is due, at every new best, and at the end of the run or of the session.

    Args:
        store: Where checkpoints go.
        when: They are due.
        capture: Returns what to save: `training.snapshot.capture`; every rank asks.
        from_start: Save the weights that the run begins with, too: they may stay its best.
        background: Write while training goes on; the last save of a session never does.
        say: Where to tell that a step waits for the disk.
    """

    def __init__(
        self,
        *,
        store: CheckpointStore,
        when: Every,
        capture: Callable[[Trainer], tuple[Contents | None, dict[str, Tensor]]],
        from_start: bool = False,
        background: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store, self.when, self.capture, self.from_start = store, when, capture, from_start
        self.background, self.say = background, say
        self._saved_step = -1
        self._reserved = not background

    def on_fit_start(self, trainer: Trainer) -> None:
        """Remember where the run stands: resumed and stopped again at once, nothing needs saving."""
        if self.from_start and trainer.state.step == 0:
            self._save(trainer, background=False)
        self._saved_step = trainer.state.step

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Save when it is due; learn what became of a save in the background."""
        self.store.check()
        best = trainer.state.best_step == trainer.state.step
        if best or self.when(trainer):
            self._save(trainer, background=self.background and not trainer.finished)
        elif not self._reserved:  # after the first step the optimizer has its state, and the size is known
            contents, _ = self.capture(trainer)
            if contents:
                self.store.reserve(contents)
            self._reserved = True

    def on_fit_end(self, trainer: Trainer) -> None:
        """Save what the last save does not hold, and see all of it on the disk."""
        self.store.wait()
        if self._saved_step != trainer.state.step:
            self._save(trainer, background=False)

    def _save(self, trainer: Trainer, *, background: bool) -> None:
        refuse_different_weights(trainer.model, trainer.world)
        self._saved_step = trainer.state.step
        contents, shares = self.capture(trainer)
        if shares:
            save_together(self.store, trainer.world, contents, shares)
        elif contents is None:
            return
        elif not background:
            self.store.wait()
            self.store.save(contents)
        else:
            if self.store.busy:
                self.say(f"step {contents.step}: waiting until the checkpoint before it is written")
            self.store.save_later(contents)
