"""The names of files in a run, a checkpoint, a model folder and a dataset, written once."""

import os
from collections.abc import Collection
from pathlib import Path, PureWindowsPath
from typing import Any

# Of a run, of a checkpoint and of a model folder.
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"

# Of a run.
RUN = "run.json"
"""What the machine and `auto` became, and how the run ended."""
METRICS = "metrics.jsonl"
EVAL = "eval.json"
LOSS_PICTURE = "loss.png"
REPORT = "report.html"
PORTRAIT = "portrait.json"
"""One line as the model sees it, for the report."""
CHECKPOINTS = "checkpoints"
MODEL = "model"
"""The model folder with the best weights."""
PROFILE = "profile"
TENSORBOARD = "tensorboard"
WANDB = "wandb"
GROWTH = "growth"
"""Model folders of early steps, by their numbers: `checkpoint.growth`."""

# Of a profile.
TRACE = "trace.json"
PROFILE_SUMMARY = "summary.txt"

# Of a checkpoint.
STATE = "training.json"
TENSORS = "training.safetensors"

# Of a dataset, beside its shards and its tokenizer.
INDEX = "index.json"


def is_made_here(names: Collection[str]) -> bool:
    """Whether a folder that holds these names is a run, a model or prepared data, and no place of texts."""
    return (CONFIG in names and not {RUN, METRICS, WEIGHTS}.isdisjoint(names)) or {INDEX, TOKENIZER} <= set(names)


def resolved(path: Path) -> Path:
    """Where a path leads.

    A link that leads back to itself stays as it is; opening it is an error. Before Python 3.13, pathlib raises
    a RuntimeError there.
    """
    return Path(os.path.realpath(path))


def folders_around(path: Path) -> tuple[Path, Path, Path]:
    """A folder and the two above it: of a model folder or a checkpoint, the run is among them."""
    return (path, *resolved(path).parents[:2])  # type: ignore[return-value]


def is_plain_name(name: Any) -> bool:
    """Whether a name from outside is a file of this folder on every system: no way out of it, no device."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and name not in ("", ".", "..")
        and PureWindowsPath(name).name == name
        and not PureWindowsPath(name).is_reserved()
        and len(name.encode(errors="replace")) < 256
    )
