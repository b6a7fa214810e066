"""The record of a run: one JSON object a line, appended as the run goes.

Names follow one scheme: `train/loss` and `val/loss` in nats per token, `val/bpb` in bits per byte of text,
`optim/lr`, `optim/grad_norm`, `perf/tokens_per_sec`, `perf/mfu` (share of the peak FLOP/s, in [0, 1]).
"""

import json
from pathlib import Path
from typing import Any

from groundup.runtime.files import write_file


class MetricsLog:
    """Appends to metrics.jsonl.

    Args:
        path: The file.
        step: Where the run starts: lines of later steps are from a session that ended without a checkpoint,
            will be made again, and are dropped.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self.path = path
        kept = [row for row in read_metrics(path) if row["step"] <= step] if step else []
        write_file(path, "".join(_line(row) for row in kept).encode())

    def write(self, **values: Any) -> None:
        """Append one line; every line has a `step`.

        A full disk must not end a training run over its log: the line is lost, the run goes on.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(values))
        except OSError:
            return


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file; a last line cut by a crash is left out, a missing file has none."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
