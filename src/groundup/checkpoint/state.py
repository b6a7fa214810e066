"""Checkpoints: model folders that also hold what training needs to go on.

`step-000250/` has the three files of a model, `training.safetensors` (optimizer state, random generators),
`training.json` (counters, place in the data) and the manifest. The newest `keep_last` are kept, and the best.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from groundup.checkpoint.background import Background, HostCopy
from groundup.checkpoint.folders import step_folder, step_folders
from groundup.checkpoint.model_folder import write_model_files
from groundup.checkpoint.tensor_file import load_tensors, save_tensors
from groundup.config.errors import UserError
from groundup.config.io import dump_json, read_json
from groundup.config.model import ModelConfig
from groundup.files.atomic import make_folder, new_folder, remove_folder, sweep, write_synced
from groundup.files.layout import CONFIG, STATE, TENSORS, TOKENIZER, WEIGHTS
from groundup.files.manifest import Facts, verify_folder
from groundup.terminal.ended import Ended
from groundup.tokenizer.base import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a checkpoint is made of."""

    step: int
    """Its number."""
    config: ModelConfig
    model: dict[str, Tensor]
    """The model's state_dict."""
    tokenizer: Tokenizer
    tensors: dict[str, dict[str, Tensor]]
    """Further tensors, by part and name."""
    state: dict[str, Any]
    """JSON values."""
    is_best: bool
    """Keep this one until another is better."""

    def parts(self) -> list[dict[str, Tensor]]:
        """All tensors: the model's, then those of each part."""
        return [self.model, *self.tensors.values()]


@dataclass(frozen=True, slots=True)
class _Saved:
    """training.json."""

    step: int
    is_best: bool
    parts: list[str]
    state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory."""

    path: Path
    model: dict[str, Tensor]
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Where they lie.
        keep_last: How many of the newest are kept. At least 2, so that one damaged file does not end a run.
        check_state: Raises a UserError for JSON values of training that cannot be gone on from: such a checkpoint is
            passed over as a damaged one is.
    """

    def __init__(
        self, folder: Path, *, keep_last: int = 2, check_state: Callable[[dict[str, Any]], object] | None = None
    ) -> None:
        if keep_last < 2:
            raise ValueError(f"keep_last must be at least 2, got {keep_last}")
        self.folder, self.keep_last = folder, keep_last
        self._check_state = check_state
        self._background = Background()
        self._copy = HostCopy()
        self._last = ""

    def __enter__(self) -> "CheckpointStore":
        """Nothing is being written yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being written; not when the program has to end at once.

        Raises:
            UserError: It could not be written. An error that is already leaving the block is reported first.
        """
        if isinstance(error, KeyboardInterrupt | Ended):
            return
        try:
            self._background.wait()
        except UserError as failure:
            if error is None:
                raise
            if isinstance(error, UserError):
                raise UserError(f"{error}; nor was the last checkpoint saved: {failure}") from failure

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written in the background."""
        return self._background.busy

    def check(self) -> None:
        """Learn whether the last `save_later` went well; one that goes on is left alone.

        Raises:
            UserError: It did not: what `save` would have raised.
        """
        self._background.check()

    def wait(self) -> None:
        """Wait until the last `save_later` is on the disk.

        Raises:
            UserError: It is not: what `save` would have raised.
        """
        self._background.wait()

    def gone(self) -> str:
        """What to say where the run folder is no longer there, and what was saved last in it; else nothing."""
        if self.folder.parent.is_dir():
            return ""
        where = "move it back, or give its new place to groundup train --resume"
        saved = f"{self._last} is the last checkpoint in it: {where}" if self._last else "nothing was saved in it"
        return f"{self.folder.parent} is not there any more, it was moved or removed; {saved}"

    def refuse_gone(self) -> None:
        """See that the run folder is still where it was.

        Raises:
            UserError: It is not.
        """
        if gone := self.gone():
            raise UserError(gone)

    def reserve(self, contents: Contents) -> None:
        """Get the memory ready that `save_later` copies such contents to."""
        self._copy.reserve(contents.parts())

    def save_later(self, contents: Contents) -> None:
        """As `save`, in the background: returns when everything is copied. Waits for a save that is not over.

        Raises:
            UserError: The save before this one failed.
        """
        self._background.wait()
        model, *others = self._copy.take(contents.parts())
        copied = replace(
            contents,
            model=model,
            tensors=dict(zip(contents.tensors, others, strict=True)),
            state=copy.deepcopy(contents.state),
        )
        self._background.start(partial(self.save, copied))

    def save(self, contents: Contents, write_more: Callable[[Path], dict[str, Facts]] | None = None) -> Path:
        """Write a checkpoint into the run folder, which must be there, then drop those that are no longer kept.

        Args:
            contents: What is in it.
            write_more: Writes further files into the folder it is given; returns their facts.

        Raises:
            UserError: The disk refuses, or the run folder is gone; earlier checkpoints are as they were.
        """
        self.refuse_gone()
        try:
            path = self._write(contents, write_more)
        except UserError:
            self.refuse_gone()  # since the save began
            raise
        self._last = path.name
        return path

    def _write(self, contents: Contents, write_more: Callable[[Path], dict[str, Facts]] | None) -> Path:
        make_folder(self.folder, alone=True)
        sweep(self.folder)
        path = step_folder(self.folder, contents.step)
        info: dict[str, Any] = {"step": contents.step}
        if contents.is_best and "train" in contents.state:
            info["val_loss"] = contents.state["train"]["best_loss"]
        known: dict[str, Facts] = {}
        with new_folder(path, known) as folder:
            if write_more:
                known |= write_more(folder)
            known |= write_model_files(folder, contents.config, contents.model, contents.tokenizer, info)
            parts = contents.tensors
            flat = {f"{part}/{name}": t for part, entries in parts.items() for name, t in entries.items()}
            known[TENSORS] = save_tensors(folder / TENSORS, flat)
            values = {"step": contents.step, "is_best": contents.is_best, "parts": list(parts), "state": contents.state}
            write_synced(folder / STATE, dump_json(values).encode())
        self._purge()
        return path

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        return [*step_folders(self.folder).values()]

    def load(self, path: Path) -> Checkpoint:
        """Read a checkpoint after checking every file of it.

        Raises:
            UserError: A file is missing or damaged.
        """
        verify_folder(path, CONFIG, WEIGHTS, TOKENIZER, TENSORS, STATE)
        values = read_json(path / STATE, _Saved)
        if self._check_state:
            try:
                self._check_state(values.state)
            except UserError as error:
                raise UserError(f"{path / STATE}: {error}") from None
        tensors: dict[str, dict[str, Tensor]] = {part: {} for part in values.parts}
        for key, tensor in load_tensors(path / TENSORS).items():
            part, _, name = key.partition("/")
            if part not in tensors:
                raise UserError(f"{path / TENSORS} holds {key!r}, of a part that {STATE} does not know")
            tensors[part][name] = tensor
        self._last = path.name
        return Checkpoint(path, load_tensors(path / WEIGHTS), tensors, values.state)

    def latest_verified(self, tell: Callable[[str], object]) -> Checkpoint | None:
        """The newest checkpoint that is whole; `tell` gets a line per damaged one that is passed over."""
        return self._first_whole(reversed(self.paths()), tell)

    def load_best(self, tell: Callable[[str], object]) -> Checkpoint:
        """The checkpoint of the lowest validation loss; the newest whole one, where none is marked.

        Args:
            tell: Called with a line per damaged one that is passed over: the best, then those that were best before it.

        Raises:
            UserError: There is no whole checkpoint.
        """
        best = self._best()
        checkpoint = self._first_whole(dict.fromkeys([*best, *reversed(self.paths())]), tell)
        if checkpoint is None:
            raise UserError(f"{self.folder} has no usable checkpoint")
        return checkpoint

    def _first_whole(self, paths: Iterable[Path], tell: Callable[[str], object]) -> Checkpoint | None:
        for path in paths:
            try:
                return self.load(path)
            except UserError as error:
                tell(f"skipped {path.name}: {error}")
        return None

    def _best(self) -> list[Path]:
        """Checkpoints marked as best, newest first: each is better than all before it."""
        best = []
        for path in reversed(self.paths()):
            with contextlib.suppress(UserError):
                if read_json(path / STATE, _Saved).is_best:
                    best.append(path)
        return best

    def _purge(self) -> None:
        kept = {*self.paths()[-self.keep_last :], *self._best()[:1]}
        for path in self.paths():
            if path not in kept:
                remove_folder(path)
