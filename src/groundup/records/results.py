"""eval.json: what is known of a model, task by task."""

import math
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json
from groundup.files.atomic import read_manifest, write_file
from groundup.files.layout import WEIGHTS, folders_around
from groundup.files.lock import one_at_a_time

EVAL = "eval.json"
VERSION = 1


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by task; none where nothing was measured yet.

    Raises:
        UserError: The file is damaged, or of a newer version.
    """
    path = folder / EVAL
    if not path.exists():
        return {}
    values = load_json(path)
    if not isinstance(values, dict) or values.get("version") != VERSION:
        raise UserError(f"{path} is not of version {VERSION} of {EVAL}; remove it to begin a new one")
    tasks = values.get("tasks")
    if not isinstance(tasks, dict) or not all(isinstance(result, dict) for result in tasks.values()):
        raise UserError(f'{path} is damaged: "tasks" must be an object of objects; remove it to begin a new one')
    return tasks


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


def summary(result: dict[str, Any]) -> str:
    """One line for people: shares with their standard error, everything else with four places."""
    parts = []
    for key, value in result.items():
        if key.startswith("acc"):
            error = (value * (1 - value) / result["examples"]) ** 0.5
            parts.append(f"{key} {value:.4f} ± {error:.4f}")
        elif key in ("loss", "perplexity", "word_perplexity", "bits_per_byte"):
            parts.append(f"{key.replace('_', ' ')} {value:.4f}")
    count = f"{result['tokens']:,} tokens" if "tokens" in result else f"{result.get('examples', 0):,} examples"
    return f"{' · '.join(parts)} ({count})"
