"""What a run does between its steps: measure, sample, compare. `training.between_steps` says when each is due.

All ranks have the same callbacks, because some need an exchange between all ranks; the logs and displays of ranks
other than 0 write nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from groundup.distributed.parallel import is_sharded, refuse_different_weights
from groundup.distributed.ranks import World
from groundup.evaluation.benchmarks import measure_choices
from groundup.evaluation.examples import ChoiceExample
from groundup.evaluation.loss import LossResult
from groundup.generation.sampling import NoNumbersError
from groundup.generation.text import TextGenerator
from groundup.loop.trainer import Callback, StepMetrics, Trainer
from groundup.model.types import evaluating
from groundup.records.measured import PART, TEXT
from groundup.records.metrics import Logger
from groundup.terminal.display import Display
from groundup.tokenizer.base import Tokenizer


@dataclass(frozen=True, slots=True)
class Every:
    """After which steps something is due: every n-th, and those named besides."""

    n: int
    """0 means none."""
    first: int | None = None
    """One more step: 0 is before the first step, 1 after it."""
    last: bool = False
    """Whether it is due after the last step of the run. This alone decides there, not n."""

    def __call__(self, trainer: Trainer) -> bool:
        """Whether it is due after the step that the trainer has made."""
        step = trainer.state.step
        if step >= trainer.max_steps:
            return self.last
        return step == self.first or (step > 0 and self.n > 0 and step % self.n == 0)


EARLY = (25, 50, 100, 200)
"""Steps at which the loss falls steeply: without points there, the curve would be drawn as a straight line."""
EARLY_TOKENS, START_TOKENS = 1 << 16, 1 << 14
"""Validation tokens that are used there, and before the first step, for which a person waits: enough for a point of the
curve before the whole split is measured, too few to choose the best step."""


class Measure(Protocol):
    """The loss over the validation split, or over `most` tokens of it (0 is all); `progress` gets the share done."""

    def __call__(self, *, most: int, progress: Callable[[float], None]) -> LossResult:
        """Measure."""


class Evaluate(Callback):
    """Measure the validation loss, and remember the best.

    Args:
        measure: Returns the loss over the validation split.
        when: When it is due. Before the first step and after `EARLY` steps, a part of the split gives the curve its
            first points; before the first step, the loss of random weights should be about ln(vocab_size).
        from_start: Whether the weights before the first step may be the best: those of a trained model may.
        log: Where results go.
        display: The terminal.
        anew: Whether the run is resumed, and its losses were measured on another text.
    """

    def __init__(
        self, *, measure: Measure, when: Every, from_start: bool, log: Logger, display: Display, anew: bool = False
    ) -> None:
        self.measure, self.when, self.from_start, self.log, self.display = measure, when, from_start, log, display
        self.anew = anew

    def on_fit_start(self, trainer: Trainer) -> None:
        """Evaluate before the first step of a run; where it is resumed, only on another text."""
        if trainer.state.step == 0:
            self._evaluate(trainer, most=0 if self.from_start else START_TOKENS)
        elif self.anew:
            self._evaluate(trainer, most=0)

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Evaluate when it is due."""
        if self.when(trainer):
            self._evaluate(trainer, most=0)
        elif trainer.state.step in EARLY and trainer.state.step < self.when.n:
            self._evaluate(trainer, most=EARLY_TOKENS)

    def _evaluate(self, trainer: Trainer, *, most: int) -> None:
        state = trainer.state
        start = time.perf_counter()
        measure = partial(self.measure, most=most, progress=partial(self.display.doing, "validating"))
        with trainer.shown():
            result = measure()
        raw: dict[str, float] = {TEXT: state.val_texts} if state.val_texts else {}
        if trainer.average is not None:  # before the first step it is the weights themselves
            raw["val/loss_raw"] = measure().loss if state.step else result.loss
        if most:
            raw[PART] = result.n_tokens
        elif result.loss < state.best_loss:
            state.best_loss, state.best_step = result.loss, state.step
        self.log.write(
            step=state.step,
            tokens=state.tokens_seen,
            seconds=round(state.seconds, 3),
            **{
                "val/loss": result.loss,
                "val/perplexity": result.perplexity,
                "val/bpb": result.bits_per_byte,
                **raw,
                "perf/eval_seconds": round(time.perf_counter() - start, 3),
            },
        )
        part = f" · of {result.n_tokens:,} tokens" if most else ""
        self.display.say(
            f"step {state.step}: validation loss {result.loss:.4f} · {result.bits_per_byte:.3f} bits per byte{part}"
        )


class HellaSwag(Callback):
    """Score the model on HellaSwag.

    The ranks share the examples; under FSDP the model is gathered and measured on rank 0. The plain model is measured,
    not its compiled form: shapes change from batch to batch.

    Args:
        examples: The questions.
        when: When it is due.
        log: Where results go.
        display: The terminal.
    """

    def __init__(self, *, examples: Sequence[ChoiceExample], when: Every, log: Logger, display: Display) -> None:
        self.examples, self.when, self.log, self.display = examples, when, log, display

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Measure when it is due."""
        if not self.when(trainer):
            return
        start = time.perf_counter()
        sharded = is_sharded(trainer.model)
        model = trainer.whole_model() if sharded else trainer.model
        if model is None:
            return
        with trainer.shown(), trainer.precision.autocast():
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
    """Draw a sample from the model.

    Args:
        tokenizer: The model's.
        prompt: The text that a sample continues.
        when: When a sample is due; none is drawn after a signal to stop.
        max_new_tokens: Length of a sample.
        seed: The same for every sample, so that only the model differs.
        log: Where samples go.
        display: The terminal.
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
        """Draw one sample, log it and show it, on rank 0."""
        if trainer.finished or not self.when(trainer):
            return
        with trainer.shown():
            model = trainer.whole_model()
            if model is None:
                return
            try:
                with evaluating(model):
                    generator = TextGenerator(model, self.tokenizer)
                    text = generator.generate(self.prompt, max_new_tokens=self.max_new_tokens, seed=self.seed)[0]
            except NoNumbersError as error:  # whether the run ends by it is the guard's to say
                self.display.say(f"step {trainer.state.step}: no sample: {error}")
                return
        self.log.write(step=trainer.state.step, sample=self.prompt + text)
        loss = f", loss {metrics.loss.item():.3f}"
        self.display.quote(self.prompt + text, title=f"step {trainer.state.step}{loss}, writes:")


class TimeLimit(Callback):
    """End the session after some hours, saved and with exit code 0, on machines that are given for a limited time.

    Args:
        hours: Length of the session, from the construction of this callback.
    """

    def __init__(self, *, hours: float) -> None:
        self._end = time.monotonic() + 3600 * hours

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Ask for the end, which comes after the next step, when all ranks have agreed on it."""
        if time.monotonic() >= self._end:
            trainer.stop.time_is_up()


class CompareWeights(Callback):
    """Compare the weights of all replicas, at the start and when it is due. Every save compares them too.

    Args:
        when: When they are compared.
    """

    def __init__(self, *, when: Every) -> None:
        self.when = when

    def on_fit_start(self, trainer: Trainer) -> None:
        """Refuse replicas that begin with different weights."""
        refuse_different_weights(trainer.model, trainer.world)

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Compare when it is due."""
        if self.when(trainer):
            refuse_different_weights(trainer.model, trainer.world)
