"""The record of a run: one JSON object per line, appended as the run goes.

Names follow one scheme: `train/loss` and `val/loss` in nats per token, `val/bpb` in bits per byte of text,
`optim/lr`, `optim/grad_norm`, `optim/skipped_steps` (so far, when there are any), `perf/tokens_per_sec`,
`perf/mfu` (share of the peak FLOP/s, in [0, 1]),
`perf/data_ms`, `perf/forward_backward_ms`, `perf/optimizer_ms` (a step, on average since the line before),
`perf/eval_seconds` (one evaluation), `val/tokens` (where it looked at so many of the split only, early in a run),
`val/text` (how often the text of validation had changed, where it had: `records.measured`).
Beside them stand `step`, `tokens`, `seconds` and texts: `sample`, `event`. A run ends with a sample of the weights that
it keeps; where they are of an earlier step, `kept_step` beside it is that one.
"""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from groundup.config.io import read_whole
from groundup.config.limits import TEXT_BYTES
from groundup.files.atomic import write_file

PEAK_AT_START, PEAK_AT_END = "perf/peak_flops_start", "perf/peak_flops_end"
"""FLOP/s of a large product, measured at the start and at the end of a session."""
LEAST_LOSS = -1e-3
"""No loss is negative, but by rounding."""
STOPPED = "stopped"
"""The event at the end of a session that a signal ended and that saved its state."""
KEPT_STEP = "kept_step"
"""Of which step the weights are that wrote the sample of a line, where they are of an earlier one than the line."""


class Logger(Protocol):
    """Takes the rows of a run."""

    def write(self, **values: Any) -> None:
        """Take one row: a `step`, numbers by name, and texts."""

    def close(self, *, failed: bool) -> None:
        """Bring out what is still held back; `failed` says that an error ends the session."""


class NoLog:
    """The logger of ranks other than 0: rank 0 writes the same rows."""

    def write(self, **values: Any) -> None:
        """Drop a row."""

    def close(self, *, failed: bool) -> None:
        """There is nothing to close."""


class MetricsLog:
    """Appends to metrics.jsonl.

    Args:
        path: The file.
        step: Where the run starts: lines of later steps are from a session that ended without a checkpoint,
            will be made again, and are dropped.
        say: Called once, when a line cannot be written.
    """

    def __init__(self, path: Path, *, step: int, say: Callable[[str], None] | None = None) -> None:
        self.path, self._say = path, say
        self._begin = ""
        kept = [row for row in read_metrics(path) if row["step"] <= step] if step else []
        write_file(path, "".join(_line(row) for row in kept).encode())

    def write(self, **values: Any) -> None:
        """Append one line; every line has a `step`. JSON knows no NaN and no infinity: they become null.

        A full disk must not end a training run over its log: the line is lost, the run goes on.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self._begin + _line(values))
            self._begin = ""
        except OSError as error:
            self._begin = "\n"  # a part of the line may be there
            if self._say:
                self._say(f"{self.path} cannot be written ({error.strerror}); lines are lost, and the run goes on")
                self._say = None

    def close(self, *, failed: bool) -> None:
        """Nothing is held open between lines."""


def _line(values: dict[str, Any]) -> str:
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a metrics file holds."""

    rows: list[dict[str, Any]]
    damaged: int
    """Lines that are not a row of ours: cut by a crash, or hurt by something else."""


def load_metrics(path: Path) -> Metrics:
    """All whole lines of a metrics file, and how many were not; a missing file has none.

    Raises:
        UserError: It cannot be read, or is no file.
    """
    if not path.exists():
        return Metrics([], 0)
    lines = [line for line in read_whole(path, TEXT_BYTES).split(b"\n") if line.strip()]
    rows = [row for line in lines if (row := _row(line)) is not None]
    return Metrics(rows, len(lines) - len(rows))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file, the others left out."""
    return load_metrics(path).rows


def _row(line: bytes) -> dict[str, Any] | None:
    """One line as values; None if it is damaged."""
    try:
        row = json.loads(line, parse_constant=lambda name: None)
        if b"\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()  # half of a pair of escapes is no character
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int or row["step"] < 0:
        return None
    return row if all(_is_sound(name, value) for name, value in row.items()) else None


def _is_sound(name: str, value: Any) -> bool:
    """Whether a value is what its name says: a text, or a JSON number, for which null stands where it is not finite."""
    if name in ("sample", "event"):
        return value is None or isinstance(value, str)
    if name == KEPT_STEP:
        return type(value) is int and value >= 0
    if "/" not in name and name not in ("step", "tokens", "seconds"):
        return True
    most = sys.float_info.max if name.startswith(("train/", "val/", "optim/")) else 2**63
    least = LEAST_LOSS if name.startswith(("train/", "val/")) else 0 if "/" not in name else -most
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most)
