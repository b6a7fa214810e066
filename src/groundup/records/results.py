"""eval.json: what is known of a model, task by task."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groundup.config.errors import UserError
from groundup.config.io import dump_json, read_json
from groundup.config.printable import counted
from groundup.files.atomic import write_file
from groundup.files.layout import EVAL, WEIGHTS, folders_around
from groundup.files.lock import one_at_a_time
from groundup.files.manifest import read_manifest
from groundup.records.history import is_finite

VERSION = 1
LARGE = 1e6
"""From here on, numbers are shown with an exponent: the perplexity of a diverged model has hundreds of digits."""


@dataclass(frozen=True, slots=True)
class _Results:
    version: Literal[1]
    tasks: dict[str, dict[str, Any]]


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by task; none where nothing was measured yet.

    Raises:
        UserError: The file is damaged, or of a newer version.
    """
    path = folder / EVAL
    if not path.exists():
        return {}
    try:
        return read_json(path, _Results).tasks
    except UserError as error:
        raise UserError(f"{error}; remove it to begin a new one") from None


def add_results(folder: Path, results: dict[str, dict[str, Any]]) -> None:
    """Write results beside those of other tasks; a task that was measured before is replaced.

    Several processes may do so at once: each reads what the one before it wrote.

    Raises:
        UserError: A result is not finite, the old file cannot be read, or the disk refuses; the old file is as it was.
    """
    if odd := [task for task, result in results.items() if any(map(_is_diverged, result.values()))]:
        raise UserError(f"{', '.join(odd)}: the result is not a finite number; the model is damaged or has diverged")
    with one_at_a_time(folder / EVAL):
        tasks = read_results(folder) | results
        write_file(folder / EVAL, dump_json({"version": VERSION, "tasks": dict(sorted(tasks.items()))}).encode())


def _is_diverged(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def results_of(model: Path) -> dict[str, dict[str, Any]]:
    """What was measured of exactly these weights, wherever it was written: in their folder, or in the run above it.

    Args:
        model: A model folder or a checkpoint.

    Raises:
        UserError: A file of results is damaged.
    """
    weights = read_manifest(model)[WEIGHTS]["sha256"]
    return {
        task: result
        for folder in reversed(folders_around(model))
        for task, result in read_results(folder).items()
        if result.get("model") == weights
    }


def result_line(result: dict[str, Any]) -> str:
    """One line for people: shares with their standard error, everything else with four places."""
    parts = []
    for key, value in result.items():
        if not is_finite(value):
            continue
        if key.startswith("acc") and 0 <= value <= 1:
            examples = result.get("examples")
            error = f" ± {(value * (1 - value) / examples) ** 0.5:.4f}" if is_finite(examples) and examples > 0 else ""
            parts.append(f"{key} {value:.4f}{error}")
        elif key in ("loss", "perplexity", "word_perplexity", "bits_per_byte"):
            shown = f"{value:.4f}" if abs(value) < LARGE else f"{value:.4g}"
            parts.append(f"{key.replace('_', ' ')} {shown}")
    counts = [counted(result[f"{unit}s"], unit) for unit in ("token", "example") if is_finite(result.get(f"{unit}s"))]
    return f"{' · '.join(parts)} ({counts[0] if counts else 'of an unknown number'})"
