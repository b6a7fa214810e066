"""When a run is saved: at intervals, at every new best, and at its end; and its weights at doubling steps."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from groundup.checkpoint.folders import step_folder
from groundup.checkpoint.model_folder import save_weights
from groundup.checkpoint.shares import save_with_shares
from groundup.checkpoint.state import CheckpointStore, Contents
from groundup.config.errors import UserError
from groundup.distributed.parallel import refuse_different_weights, whole_state
from groundup.files.atomic import make_folder
from groundup.loop.callbacks import Every
from groundup.loop.trainer import Callback, StepMetrics, Trainer
from groundup.model.lora import merge_lora
from groundup.tokenizer.base import Tokenizer


class SaveCheckpoints(Callback):
    """Save when it is due, at every new best, and at the end of the run or of the session.

    Args:
        store: Where checkpoints go.
        when: When they are due.
        capture: Returns what to save (`training.snapshot.capture`); called by every rank.
        from_start: Save the weights before the first step, too: of a trained model they may stay the best.
        anew: Save the weights of a resumed run again: their loss was measured on another text.
        background: Write while training goes on, all but the last save of a session.
        say: Called with a line when training waits for the disk.
    """

    def __init__(
        self,
        *,
        store: CheckpointStore,
        when: Every,
        capture: Callable[[Trainer], tuple[Contents | None, dict[str, Tensor]]],
        from_start: bool = False,
        anew: bool = False,
        background: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.store, self.when, self.capture, self.from_start = store, when, capture, from_start
        self.anew, self.background, self.say = anew, background, say
        self._saved_step = -1
        self._reserved = not background

    def on_fit_start(self, trainer: Trainer) -> None:
        """Remember the step: a run that is resumed and stopped at once need not be saved again."""
        if self.anew or (self.from_start and trainer.state.step == 0):
            self._save(trainer, background=False)
        self._saved_step = trainer.state.step

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Save when it is due; report errors of a save in the background."""
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
        """Save the steps since the last save, and wait until all is on the disk."""
        self.store.wait()
        if self._saved_step != trainer.state.step:
            self._save(trainer, background=False)

    def _save(self, trainer: Trainer, *, background: bool) -> None:
        refuse_different_weights(trainer.model, trainer.world)
        self._saved_step = trainer.state.step
        contents, shares = self.capture(trainer)
        if shares:
            save_with_shares(self.store, contents, shares, trainer.world)
        elif contents is None:
            return
        elif not background:
            self.store.wait()
            self.store.save(contents)
        else:
            if self.store.busy:
                self.say(f"step {contents.step}: waiting until the checkpoint before it is written")
            self.store.save_later(contents)


class KeepGrowth(Callback):
    """Keep the weights after 0, 1, 2, 4, 8, ... steps: a few small folders that show how a model grows.

    Args:
        folder: Where they go, each as a model folder with the name of its step.
        tokenizer: The model's.
        say: Called with a line where the disk refuses: training goes on without these weights.
    """

    def __init__(self, *, folder: Path, tokenizer: Tokenizer, say: Callable[[str], None]) -> None:
        self.folder, self.tokenizer, self.say = folder, tokenizer, say

    def on_fit_start(self, trainer: Trainer) -> None:
        """Keep the weights before the first step."""
        if trainer.state.step == 0:
            self._keep(trainer)

    def on_step_end(self, trainer: Trainer, metrics: StepMetrics) -> None:
        """Keep the weights after a step whose number is a power of two."""
        if trainer.state.step.bit_count() == 1:
            self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        state = whole_state(trainer.model.state_dict(), keep=trainer.world.is_main)
        if not trainer.world.is_main:
            return
        step = trainer.state.step
        path = step_folder(self.folder, step)
        try:
            make_folder(self.folder, alone=True)
            save_weights(path, trainer.model.config, merge_lora(state), self.tokenizer, {"step": step})
        except UserError as error:
            self.say(f"step {step}: the weights for watching the model grow are not kept: {error}")
