"""Runs that were: what a run folder tells, however its run ended. Imports no torch.

Folders outlive the program that made them, so nothing here insists: a file that is missing or hurt leaves its part
empty, and lines of metrics that are damaged are counted. Only a folder without a run in it is an error.
"""

import errno
import math
import os
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

from groundup.config.errors import UserError, reading
from groundup.config.io import from_kinds, load_object
from groundup.config.model import GPTConfig, ModernConfig, TransformerConfig
from groundup.files.layout import CONFIG, EVAL, METRICS, MODEL, RUN, resolved
from groundup.files.lock import is_held
from groundup.planner.flops import flops_per_token
from groundup.records.measured import PART, of_last_text, of_whole_split
from groundup.records.metrics import KEPT_STEP, PEAK_AT_END, PEAK_AT_START, STOPPED, load_metrics
from groundup.records.models_here import no_run

Axis = Literal["steps", "tokens", "time", "flops"]
"""What a run can be drawn against: steps, tokens learned from, seconds of training steps, training FLOPs."""

MISSING = "-"
"""What stands where a run has no such value."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """One run folder."""

    path: Path
    config: dict[str, Any]
    """config.json as it is; it may be of an older groundup."""
    facts: dict[str, Any]
    """run.json."""
    rows: list[dict[str, Any]]
    """metrics.jsonl."""
    damaged: int
    """Lines of metrics.jsonl that could not be read."""
    scores: dict[str, Any]
    """eval.json, with dotted keys."""
    state: Literal["running", "finished", "stopped", "crashed"]
    """stopped: by a signal, its state saved; crashed: it ended in any other way before its last step."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        return resolved(self.path).name

    @property
    def max_steps(self) -> int | None:
        """Steps of the whole run."""
        max_steps = self.config.get("max_steps")
        return max_steps if isinstance(max_steps, int) else None

    @property
    def last(self) -> dict[str, Any]:
        """The last line that counts steps and tokens; empty if there is none."""
        return next((row for row in reversed(self.rows) if row.get("tokens") is not None), {})

    @property
    def best(self) -> dict[str, Any]:
        """The line of the lowest validation loss that the run keeps weights of; empty if there is none."""
        return best_row(self.rows, self.config)

    @property
    def latest_look(self) -> dict[str, Any]:
        """The last line of a validation loss after a step, also of a part of the split; empty if there is none."""
        return next((row for row in reversed(self.rows) if row.get("step") and is_finite(row.get("val/loss"))), {})

    @property
    def tokens_per_sec(self) -> float | None:
        """Mean speed of the training steps."""
        tokens, seconds = self.last.get("tokens"), self.last.get("seconds")
        return tokens / seconds if is_finite(tokens) and is_finite(seconds) and seconds > 0 else None

    @property
    def shape(self) -> TransformerConfig | None:
        """The model's shape with its vocabulary; None if this groundup does not know such a model."""
        model, resolved = self.config.get("model"), _object(self.facts.get("resolved"))
        if not isinstance(model, dict):
            return None
        try:
            model = {**model, "vocab_size": resolved.get("vocab_size", model.get("vocab_size", 0))}
            return from_kinds((GPTConfig, ModernConfig), model, where="model")
        except UserError:
            return None

    def series(self, key: str, axis: Axis) -> tuple[list[float], list[float]]:
        """The places on an axis at which a metric was measured, and its values.

        Raises:
            UserError: The axis is FLOPs, and the model is not known.
        """
        per_unit, unit = 1.0, {"steps": "step", "time": "seconds"}.get(axis, "tokens")
        if axis == "flops":
            if (shape := self.shape) is None:
                raise UserError(f"{self.path} does not say which model it trained, so its FLOPs cannot be counted")
            per_unit = flops_per_token(shape, shape.block_size)
        x, y = series(of_curve(self.rows) if key.startswith("val/") else self.rows, unit, key)
        return [per_unit * value for value in x], y


def series(rows: list[dict[str, Any]], x: str, y: str) -> tuple[list[float], list[float]]:
    """One metric against another, where a line has both; what is not finite is left out."""
    pairs = [(row[x], row[y]) for row in rows if is_finite(row.get(x)) and is_finite(row.get(y))]
    return [a for a, _ in pairs], [b for _, b in pairs]


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that can be drawn."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def lowest_loss(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of the lowest loss over the whole validation split, as it was last; empty if there is none."""
    return min(whole_looks(rows), key=lambda row: row["val/loss"], default={})


def whole_looks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of losses over the whole validation split, as it was last: those that can be compared."""
    return [row for row in of_whole_split(rows) if is_finite(row.get("val/loss"))]


def of_curve(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics whose validation losses may be joined: of parts of the split only before the whole is known.

    Where it is known of the first weights alone, parts are all there is of what was learned.
    """
    rows = of_last_text(rows)
    known = [i for i, row in enumerate(rows) if is_finite(row.get("val/loss")) and not row.get(PART)]
    if not any(rows[i].get("step") for i in known):
        return rows
    return rows[: known[0]] + of_whole_split(rows[known[0] :])


def best_row(rows: list[dict[str, Any]], config: dict[str, Any]) -> dict[str, Any]:
    """The line of the lowest validation loss that a run of this config keeps weights of; empty if there is none."""
    return lowest_loss(_kept(rows, config))


def last_row(rows: list[dict[str, Any]], config: dict[str, Any]) -> dict[str, Any]:
    """The last line of those of which `best_row` takes the lowest."""
    return next(reversed(whole_looks(_kept(rows, config))), {})


def _kept(rows: list[dict[str, Any]], config: dict[str, Any]) -> list[dict[str, Any]]:
    """Before the first step weights are kept where they are a trained model's (`init_from`), not where random."""
    return rows if config.get("init_from") else [row for row in rows if row.get("step")]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a model wrote."""

    step: int
    """Of its weights."""
    text: str
    kept: bool
    """Whether it is the last word of a run, by the weights that it keeps, of an earlier step than its last."""


def samples(rows: list[dict[str, Any]]) -> list[Sample]:
    """What a run wrote, in the order of the steps of the weights; of the same weights the latest text."""
    written = [row for row in rows if row.get("sample") is not None]
    found = {
        step: Sample(step, row["sample"], kept=row is written[-1] and KEPT_STEP in row)
        for row in written
        for step in (row.get(KEPT_STEP, row["step"]),)
    }
    return [found[step] for step in sorted(found)]


def is_run(path: Path) -> bool:
    """Whether a folder is that of a run; of one that may not be looked into, it is not known."""
    try:
        return (path / RUN).is_file() or ((path / CONFIG).is_file() and (path / METRICS).is_file())
    except OSError:
        return False


def find_runs(folder: Path) -> list[Path]:
    """The runs below a folder, in the order of their names; or the folder itself, if it is a run.

    A folder below that may not be looked into is among them: it may be a run, which reading it says.

    Raises:
        UserError: There is no such folder.
    """
    if is_run(folder):
        return [folder]
    try:
        return sorted(path for path in folder.iterdir() if is_run(path) or _is_closed(path))
    except OSError as error:
        raise UserError(f"cannot list runs in {folder}: {error.strerror}") from error


def _is_closed(path: Path) -> bool:
    """Whether a folder may not be looked into: it is of another user."""
    return path.is_dir() and not os.access(path, os.X_OK)


def read_runs(folder: Path, tell: Callable[[str], object]) -> list[RunHistory]:
    """The runs below a folder; or the folder itself, if it is a run.

    Args:
        folder: Where they lie.
        tell: Called with a line for each run below it that cannot be read.

    Raises:
        UserError: There is no such folder, or it is a run that cannot be read.
    """
    paths, runs = find_runs(folder), []
    for path in paths:
        try:
            runs.append(read_run(path))
        except UserError as error:
            if path == folder:
                raise
            tell(f"left out: {error}")
    return runs


def read_run(path: Path) -> RunHistory:
    """Read a run folder.

    Raises:
        UserError: It is not one, or its metrics cannot be read.
    """
    if _is_closed(path):
        raise UserError(f"cannot read {path}: {os.strerror(errno.EACCES)}")
    if not is_run(path):
        raise no_run(path)
    config, facts = load_object(path / CONFIG), load_object(path / RUN)
    with reading(path / METRICS):
        metrics = load_metrics(path / METRICS)
    run = RunHistory(
        path=path,
        config=config or _object(facts.get("config")),
        facts=facts,
        rows=metrics.rows,
        damaged=metrics.damaged,
        scores=flatten(load_object(path / EVAL)),
        state="crashed",
    )
    return replace(run, state=_state(run))


def _state(run: RunHistory) -> Literal["running", "finished", "stopped", "crashed"]:
    if is_held(resolved(run.path)):
        return "running"
    # The model folder is the last thing but the report that a run makes; a longer second run has one from the first.
    if (run.path / MODEL).is_dir() and run.last.get("step", -1) >= (run.max_steps or math.inf):
        return "finished"
    return "stopped" if run.rows and run.rows[-1].get("event") == STOPPED else "crashed"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(values: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Dotted keys in which not all agree, with the value of each; MISSING where one has none."""
    flats = [flatten(value) for value in values]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    rows = {key: [flat.get(key, MISSING) for flat in flats] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


SAME_PEAK = 1.25
"""Peaks that are further apart than this were measured while other programs took their share of the machine."""


def median_mfu(rows: list[dict[str, Any]]) -> float | None:
    """Share of the peak FLOP/s that the middle line of metrics reached.

    None where none was measured, or where the peak at the end of a session was another than at its start: then it is
    not known what the numbers are a share of. Of two that are nearly the same the larger counts.
    """
    values = [row["perf/mfu"] for row in rows if is_finite(row.get("perf/mfu"))]
    peaks = [(row[PEAK_AT_START], row[PEAK_AT_END]) for row in rows if PEAK_AT_START in row and PEAK_AT_END in row]
    grown = [end / start for start, end in peaks if is_finite(start) and is_finite(end) and start > 0]
    if not values or any(not 1 / SAME_PEAK <= ratio <= SAME_PEAK for ratio in grown):
        return None
    return statistics.median(values) / max([1.0, *grown])


PARTS = {
    "perf/forward_backward_ms": "forward and backward",
    "perf/optimizer_ms": "optimizer",
    "perf/data_ms": "data",
}
"""What a step's time is made of (`runtime.timing`), the largest first."""


def where_time_went(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds by part of a run, over all of its sessions; empty where none were measured.

    Means of a step are weighted with the steps they stand for. What is left of the steps' time (Python, waiting for
    other ranks) is "rest of the step".
    """
    totals = dict.fromkeys(PARTS.values(), 0.0)
    step, steps_time, evaluation = 0, 0.0, 0.0
    for row in rows:
        if any(key in row for key in PARTS):
            for key, part in PARTS.items():
                totals[part] += max(0, row["step"] - step) * (row.get(key) or 0.0) / 1e3
            step, steps_time = row["step"], row.get("seconds") or 0.0
        evaluation += row.get("perf/eval_seconds") or 0.0
    if not step:
        return {}
    rest = max(0.0, steps_time - sum(totals.values()))
    return {**totals, "rest of the step": rest, "evaluation": evaluation}
