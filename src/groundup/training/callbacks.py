"""Looking on at a run: logging, evaluating, sampling, saving.

The order matters and `build` keeps it: the log before the evaluation (so that lines come in the order of steps),
the evaluation before the checkpoint (which asks whether this step is the best). Every rank has the same callbacks, and
they meet where a number or a tensor of all is needed; the logs and displays of ranks other than 0 say nothing.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.checkpoint.shares import write_shares
from groundup.checkpoint.state import CheckpointStore, Contents
from groundup.distributed.parallel import is_sharded, is_share, refuse_different_weights, whole_state
from groundup.distributed.ranks import World
from groundup.evaluation.benchmarks import measure_choices
from groundup.evaluation.examples import ChoiceExample
from groundup.evaluation.loss import LossResult
from groundup.generation.text import TextGenerator
from groundup.model.build import build_model
from groundup.model.gpt import GPT
from groundup.model.lora import merge_lora
from groundup.records.display import Display
from groundup.tokenizer.base import Tokenizer
from groundup.training.loggers import Logger
from groundup.training.trainer import StepMetrics, Trainer


class LogMetrics:
    """Write and show the numbers of every `every`-th step.

    Args:
        log: Where lines go.
        display: What the person sees.
        every: Steps between lines; the first and the last are always written.
        lr: Peak learning rate.
        flops_per_token: For MFU.
        peak_flops: FLOP/s the machine can do at best; None leaves MFU out.
    """

    def __init__(
        self,
        *,
        log: Logger,
        display: Display,
        every: int,
        lr: float,
        flops_per_token: float,
        peak_flops: float | None,
    ) -> None:
        self.log, self.display, self.every, self.lr = log, display, every, lr
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self._seconds = 0.0
        self._steps = 0
        self._parts: dict[str, float] = {}

    def on_fit_start(self, trainer: Trainer) -> None:
        """Nothing to log yet."""

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Average the speed since the last line, and write one; tell at once what must be known of a step."""
        for note in metrics.notes:
            self.log.write(step=trainer.state.step, event=note)
            self.display.say(note)
        self._seconds += metrics.seconds
        self._steps += 1
        for part, seconds in metrics.parts.items():
            self._parts[part] = self._parts.get(part, 0.0) + seconds
        state = trainer.state
        if state.step % self.every and state.step != 1 and not trainer.finished:
            return
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

    def on_fit_end(self, trainer: Trainer) -> None:
        """The last step has been written already."""


class Evaluate:
    """Measure the validation loss every `every` steps and after the last, and remember the best.

    Args:
        measure: Returns the loss over the validation split.
        every: Steps between evaluations.
        log: Where results go.
        display: What the person sees.
    """

    def __init__(self, *, measure: Callable[[], LossResult], every: int, log: Logger, display: Display) -> None:
        self.measure, self.every, self.log, self.display = measure, every, log, display

    def on_fit_start(self, trainer: Trainer) -> None:
        """The loss before the first step: ln(vocab_size), when the model starts right."""
        if trainer.state.step == 0:
            self._evaluate(trainer)

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Evaluate when it is time."""
        if trainer.state.step % self.every == 0 or trainer.state.step >= trainer.max_steps:
            self._evaluate(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        """The last step has been evaluated already."""

    def _evaluate(self, trainer: Trainer) -> None:
        state = trainer.state
        start = time.perf_counter()
        result = self.measure()
        if result.loss < state.best_loss:
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


class HellaSwag:
    """Let the model choose endings every `every` steps, and after the last.

    The ranks share the examples; a model whose parameters are shared out is put together and measured on rank 0. It is
    the model itself that is asked, never its compiled form: shapes change from batch to batch.

    Args:
        examples: The questions.
        every: Steps between measurements.
        log: Where results go.
        display: What the person sees.
    """

    def __init__(self, *, examples: Sequence[ChoiceExample], every: int, log: Logger, display: Display) -> None:
        self.examples, self.every, self.log, self.display = examples, every, log, display

    def on_fit_start(self, trainer: Trainer) -> None:
        """Random weights choose at random."""

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Measure when it is time."""
        if trainer.state.step % self.every and trainer.state.step < trainer.max_steps:
            return
        start = time.perf_counter()
        sharded = is_sharded(trainer.model)
        model = _whole_model(trainer) if sharded else trainer.model
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

    def on_fit_end(self, trainer: Trainer) -> None:
        """The last step has been measured already."""


class Sample:
    """Let the model speak every `every` steps.

    Args:
        tokenizer: The model's.
        prompt: What it continues.
        every: Steps between samples.
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
        every: int,
        max_new_tokens: int,
        seed: int,
        log: Logger,
        display: Display,
    ) -> None:
        self.tokenizer, self.prompt, self.every = tokenizer, prompt, every
        self.max_new_tokens, self.seed, self.log, self.display = max_new_tokens, seed, log, display

    def on_fit_start(self, trainer: Trainer) -> None:
        """An untrained model has nothing to say."""

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Sample when it is time."""
        if trainer.state.step % self.every == 0 and not trainer.finished:
            self.sample(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        """The scene at the end is `report`'s."""

    def sample(self, trainer: Trainer) -> None:
        """Draw one sample, log it and show it; rank 0 speaks for all."""
        model = _whole_model(trainer)
        if model is None:
            return
        generator = TextGenerator(model, self.tokenizer)
        text = generator.generate(self.prompt, max_new_tokens=self.max_new_tokens, seed=self.seed)[0]
        self.log.write(step=trainer.state.step, sample=self.prompt + text)
        self.display.quote(self.prompt + text)


class Checkpoint:
    """Save every `every` steps, at every new best, and at the end of the run or of the session.

    Args:
        store: Where checkpoints go.
        every: Steps between checkpoints.
        tokenizer: Saved with the weights, so that every checkpoint is a whole model.
        snapshot: Returns what else the run needs to go on: tensors by part, and JSON values.
        background: Write while training goes on; the last save of a session never does.
        say: Where to tell that a step waits for the disk.
    """

    def __init__(
        self,
        *,
        store: CheckpointStore,
        every: int,
        tokenizer: Tokenizer,
        snapshot: Callable[[Trainer], tuple[dict[str, dict[str, Tensor]], dict[str, Any]]],
        background: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.store, self.every, self.tokenizer, self.snapshot = store, every, tokenizer, snapshot
        self.background, self.say = background, say
        self._saved_step = -1
        self._reserved = not background

    def on_fit_start(self, trainer: Trainer) -> None:
        """Remember where the run stands: resumed and stopped again at once, nothing needs saving."""
        self._saved_step = trainer.state.step

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Save when it is time; learn what became of a save in the background."""
        self.store.check()
        best = trainer.state.best_step == trainer.state.step
        if best or trainer.state.step % self.every == 0:
            self._save(trainer, background=self.background)
        elif not self._reserved:  # after the first step the optimizer has its state, and the size is known
            contents, _ = self._contents(trainer)
            if contents:
                self.store.reserve(contents)
            self._reserved = True

    def on_fit_end(self, trainer: Trainer) -> None:
        """Save what the last save does not hold, and see all of it on the disk."""
        self.store.wait()
        if self._saved_step != trainer.state.step:
            self._save(trainer, background=False)

    def _save(self, trainer: Trainer, *, background: bool) -> None:
        self._saved_step = trainer.state.step
        contents, shares = self._contents(trainer)
        if shares:
            self._save_together(trainer.world, contents, shares)
        elif contents is None:
            return
        elif not background:
            self.store.wait()
            self.store.save(contents)
        else:
            if self.store.busy and self.say:
                self.say(f"step {contents.step}: waiting until the checkpoint before it is written")
            self.store.save_later(contents)

    def _save_together(self, world: World, contents: Contents | None, shares: dict[str, Tensor]) -> None:
        """Rank 0 makes the folder and vouches for it; each rank writes what it alone holds."""
        if contents is None:
            write_shares(Path(world.broadcast(None)), shares, world)
            return
        self.store.save(contents, lambda folder: write_shares(Path(world.broadcast(str(folder))), shares, world))

    def _contents(self, trainer: Trainer) -> tuple[Contents | None, dict[str, Tensor]]:
        """What rank 0 saves (None on the others), and what each rank has only a share of. Every rank must ask."""
        tensors, state = self.snapshot(trainer)
        shares = {
            f"{part}/{name}": tensors[part].pop(name)
            for part in tensors
            for name in list(tensors[part])
            if is_share(tensors[part][name])
        }
        model = whole_state(trainer.model.state_dict(), keep=trainer.world.is_main)
        if not trainer.world.is_main:
            return None, shares
        contents = Contents(
            step=trainer.state.step,
            config=trainer.model.config,
            model=merge_lora(model),
            tokenizer=self.tokenizer,
            tensors=tensors,
            state=state,
            is_best=trainer.state.best_step == trainer.state.step,
        )
        return contents, shares


class CompareWeights:
    """See to it that replicas are replicas: every `every` steps, and at the end.

    Args:
        every: Steps between comparisons; 0 compares only at the end.
    """

    def __init__(self, *, every: int) -> None:
        self.every = every

    def on_fit_start(self, trainer: Trainer) -> None:
        """What is built or restored begins with the same weights."""
        refuse_different_weights(trainer.model, trainer.world)

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Compare when it is time."""
        if self.every and trainer.state.step % self.every == 0:
            refuse_different_weights(trainer.model, trainer.world)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Compare, before the last save."""
        refuse_different_weights(trainer.model, trainer.world)


def _whole_model(trainer: Trainer) -> GPT | None:
    """A model that can compute on rank 0 alone; None on the others. Every rank must ask."""
    if not is_sharded(trainer.model):
        return trainer.model if trainer.world.is_main else None
    weights = whole_state(trainer.model.state_dict(), keep=trainer.world.is_main)
    if not trainer.world.is_main:
        return None
    model = build_model(trainer.model.config).to(trainer.device)
    model.load_state_dict(weights)
    return model
