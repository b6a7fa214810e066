"""eval.json: what is known of a model, task by task."""

import math
import os
from collections.abc import Iterable
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
TASKS = ("val", "hellaswag", "lambada", "wikitext")
"""Tasks that are no files of one's own."""
LARGE = 1e6
"""From here on, numbers are shown with an exponent: the perplexity of a diverged model has hundreds of digits."""


@dataclass(frozen=True, slots=True)
class _Results:
    version: Literal[1]
    tasks: dict[str, dict[str, Any]]


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Results by task; none where nothing was measured yet.

    The name of a task ends with what was unusual about its measurement, as "val (first 20)".

    Raises:
        UserError: The file is damaged, or of a newer version.
    """
    path = folder / EVAL
    if not path.exists():
        return {}
    try:
        tasks = read_json(path, _Results).tasks
    except UserError as error:
        raise UserError(f"{error}; remove it to begin a new one") from None
    # Of two under one name the one that had it in the file comes later: the names are in order, and this one is longer.
    return dict(_told_in_full(task, result) for task, result in tasks.items())


def _told_in_full(task: str, result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A task and its result; before groundup wrote "how", names did not tell that only first examples were measured."""
    limit, weights = result.get("limit"), result.get("weights")
    if "how" in result or type(limit) is not int or limit < 1:
        return task, result
    how = f"first {limit}" if weights is None else f"{weights}, first {limit}"
    return f"{task.removesuffix(f' ({weights})')} ({how})", {**result, "how": how}


def add_results(folder: Path, results: dict[str, dict[str, Any]], beside: Iterable[str] = ()) -> None:
    """Write results beside those of other tasks; a task that was measured before in the same way is replaced.

    A file goes by its name, or by as much of its path as tells it from another file.

    Args:
        folder: Where eval.json is.
        results: By task. Their "path" makes them those of a file, their "how" tells what was unusual.
        beside: Tasks of the same command.

    Several processes may do so at once: each reads what the one before it wrote.

    Raises:
        UserError: A result is not finite, the old file cannot be read, or the disk refuses; the old file is as it was.
    """
    if odd := [task for task, result in results.items() if is_diverged(result)]:
        raise UserError(f"{', '.join(odd)}: the result is not a finite number; the model is damaged or has diverged")
    with one_at_a_time(folder / EVAL):
        tasks = read_results(folder)
        for task, result in results.items():
            tasks[_key(tasks, task, result, beside)] = result
        write_file(folder / EVAL, dump_json({"version": VERSION, "tasks": dict(sorted(tasks.items()))}).encode())


def is_diverged(result: dict[str, Any]) -> bool:
    """Whether a number of a result is none."""
    return any(isinstance(value, float) and not math.isfinite(value) for value in result.values())


def _key(found: dict[str, dict[str, Any]], task: str, result: dict[str, Any], beside: Iterable[str]) -> str:
    """What a result goes by: the task, and how it was measured."""
    how = f" ({result['how']})" if "how" in result else ""
    if "path" not in result:
        return task + how
    path = Path(result["path"])
    others = {Path(os.path.abspath(name)) for name in beside if name not in TASKS} - {path}  # noqa: PTH100
    names = ["/".join(path.parts[-n:]) for n in range(1, len(path.parts))]
    for name in names:
        if (old := found.get(name + how)) and _is_of(old, result, or_unknown=False):
            return name + how
    for n, name in enumerate(names, 1):
        told_apart = name not in TASKS and all(other.parts[-n:] != path.parts[-n:] for other in others)
        same = [value for key, value in found.items() if key == name or key.startswith(f"{name} (")]
        if told_apart and all(_is_of(value, result) for value in same):
            return name + how
    return f"{path}{how}"


def _is_of(old: dict[str, Any], result: dict[str, Any], *, or_unknown: bool = True) -> bool:
    """Whether an old result is of the same file, wherever it lies; one without a path does not say."""
    if "path" not in old:
        return or_unknown
    return old["path"] == result["path"] or ("data" in result and old.get("data") == result["data"])


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
