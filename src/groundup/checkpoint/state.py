"""Checkpoints: model folders that also hold what training needs to go on.

`step-000250/` has the three files of a model, `training.safetensors` (optimizer state, random generators),
`training.json` (counters, place in the data) and the manifest. The newest `keep_last` are kept, and the best.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from groundup.checkpoint.artifact import load_tensors, save_tensors, write_model_files
from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json
from groundup.config.model import ModelConfig
from groundup.runtime.files import new_folder, remove_folder, sweep, verify_folder, write_synced
from groundup.tokenizer.base import Tokenizer

TENSORS, STATE = "training.safetensors", "training.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory."""

    path: Path
    model: dict[str, Tensor]
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


@dataclass(slots=True)
class Found:
    """The newest whole checkpoint, and what was passed over on the way to it."""

    checkpoint: Checkpoint | None = None
    notes: list[str] = field(default_factory=list)


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: Where they lie.
        keep_last: How many of the newest are kept. At least 2, so that one damaged file never ends a run.
    """

    def __init__(self, folder: Path, *, keep_last: int = 2) -> None:
        if keep_last < 2:
            raise ValueError(f"keep_last must be at least 2, got {keep_last}")
        self.folder, self.keep_last = folder, keep_last

    def save(
        self,
        *,
        step: int,
        config: ModelConfig,
        model: dict[str, Tensor],
        tokenizer: Tokenizer,
        tensors: dict[str, dict[str, Tensor]],
        state: dict[str, Any],
        is_best: bool,
    ) -> Path:
        """Write a checkpoint, then drop those that are no longer kept.

        Args:
            step: Its number.
            config: The model's shape.
            model: The model's state_dict.
            tokenizer: The model's tokenizer.
            tensors: Further tensors, by part and name.
            state: JSON values.
            is_best: Keep this one until another is better.

        Raises:
            UserError: The disk refuses; earlier checkpoints are as they were.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        path = self.folder / f"step-{step:07d}"
        info = {
            "step": step,
            **({"val_loss": state["train"]["best_loss"]} if is_best and "train" in state else {}),
        }
        with new_folder(path) as folder:
            write_model_files(folder, config, model, tokenizer, info)
            flat = {f"{part}/{name}": t for part, entries in tensors.items() for name, t in entries.items()}
            save_tensors(folder / TENSORS, flat)
            values = {"step": step, "is_best": is_best, "parts": list(tensors), "state": state}
            write_synced(folder / STATE, dump_json(values).encode())
        self._purge()
        return path

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*"))

    def load(self, path: Path) -> Checkpoint:
        """Read a checkpoint after checking every file of it.

        Raises:
            UserError: A file is missing or damaged.
        """
        verify_folder(path)
        values = load_json(path / STATE)
        tensors: dict[str, dict[str, Tensor]] = {part: {} for part in values["parts"]}
        for key, tensor in load_tensors(path / TENSORS).items():
            part, name = key.split("/", 1)
            tensors[part][name] = tensor
        return Checkpoint(path, load_tensors(path / "model.safetensors"), tensors, values["state"])

    def latest_verified(self) -> Found:
        """The newest checkpoint that is whole; damaged ones are passed over by name."""
        found = Found()
        for path in reversed(self.paths()):
            try:
                found.checkpoint = self.load(path)
            except UserError as error:
                found.notes.append(f"skipped {path.name}: {error}")
            else:
                break
        return found

    def load_best(self) -> Checkpoint:
        """The checkpoint of the lowest validation loss; the newest whole one, where none is marked.

        Raises:
            UserError: There is no whole checkpoint.
        """
        best = self._best()
        if best is not None:
            return self.load(best)
        found = self.latest_verified()
        if found.checkpoint is None:
            raise UserError(f"{self.folder} has no usable checkpoint")
        return found.checkpoint

    def _best(self) -> Path | None:
        """The newest checkpoint marked as best: each is better than all before it."""
        for path in reversed(self.paths()):
            try:
                if json.loads((path / STATE).read_bytes())["is_best"]:
                    return path
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    def _purge(self) -> None:
        kept = {*self.paths()[-self.keep_last :], self._best()}
        for path in self.paths():
            if path not in kept:
                remove_folder(path)
