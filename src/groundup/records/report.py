"""loss.png and report.html: what a run did, in one picture and in one file that can be mailed.

The page carries its picture inside and loads nothing from anywhere. It is drawn from `metrics.jsonl`,
`run.json` and `eval.json` alone, so it can be drawn again for any run folder at any time.
"""

import base64
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.config.io import dump_json, read_json
from groundup.files.atomic import write_file
from groundup.files.layout import LOSS_PICTURE, METRICS, REPORT, RUN
from groundup.records.history import best_row, is_finite, median_mfu, where_time_went
from groundup.records.metrics import read_metrics
from groundup.records.plot import plot_loss
from groundup.records.results import read_results, summary
from groundup.terminal.display import clock, quantity

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328 }
h1 { margin-bottom: 0 } h2 { margin-top: 2rem; border-bottom: 1px solid #d0d7de }
img { width: 100%; margin-top: 1rem }
table { border-collapse: collapse } td, th { padding: .2rem 1rem .2rem 0; text-align: left }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; white-space: pre-wrap; font-size: 14px }
table.wide { width: 100% } table.wide th { white-space: nowrap } td.bar { width: 60% }
td.bar div { background: #8fb8de; height: .8rem; min-width: 1px }
.quiet { color: #59636e } details { margin: .5rem 0 }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3 } .quiet { color: #9198a1 }
  pre { background: #161b22 } img { background: #fff }
}
"""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What run.json says of how a run came to be; nothing is insisted on, as it may be of another version."""

    groundup: str = "of an unknown version"
    started: str = ""
    command: str = ""
    parameters: int | None = None
    bigram_loss: float | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def write_report(run_dir: Path) -> None:
    """Draw loss.png and report.html from what the run folder holds.

    Raises:
        UserError: The folder has no run.json, or it cannot be read.
    """
    run = read_json(run_dir / RUN, RunFacts, more=True)
    rows = read_metrics(run_dir / METRICS)
    plot_loss(rows, run_dir / LOSS_PICTURE, baseline=run.bigram_loss, title=run_dir.name)
    write_file(run_dir / REPORT, _page(run_dir, run, rows).encode())


def _page(run_dir: Path, run: RunFacts, rows: list[dict[str, Any]]) -> str:
    picture = base64.b64encode((run_dir / LOSS_PICTURE).read_bytes()).decode()
    samples = [(row["step"], row["sample"]) for row in rows if row.get("sample") is not None]
    parts = [
        f"<h1>{html.escape(run_dir.name)}</h1>",
        f"<p class=quiet>groundup {html.escape(run.groundup)} · {html.escape(run.started)}</p>",
        _table(_results(run, rows)),
        f'<img alt="training and validation loss" src="data:image/png;base64,{picture}">',
        *_time(rows),
        *_evaluations(run_dir),
        "<h2>What it says</h2>",
        *[
            f"<details{' open' if i == len(samples) - 1 else ''}><summary>after step {step}</summary>"
            f"<pre>{html.escape(text)}</pre></details>"
            for i, (step, text) in enumerate(samples)
        ],
        "<h2>How to reproduce it</h2>",
        f"<pre>{html.escape(run.command)}</pre>",
        f"<h2>Machine</h2>{_table([(key, str(value)) for key, value in run.machine.items()])}",
        f"<h2>Settings</h2>{_table([(key, str(value)) for key, value in run.resolved.items()])}",
        f"<details><summary>config.json</summary><pre>{html.escape(dump_json(run.config))}</pre></details>",
    ]
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(run_dir.name)}</title><style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"
    )


def _results(run: RunFacts, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The numbers a reader looks for first."""
    table = [] if run.parameters is None else [("parameters", f"{run.parameters:,}")]
    if run.bigram_loss is not None:
        table.append(("bigram, validation loss", f"{run.bigram_loss:.4f}"))
    if best := best_row(rows, run.config):
        table.append(("best validation loss", f"{best['val/loss']:.4f} at step {best['step']}"))
    if vals := [row for row in rows if is_finite(row.get("val/loss"))]:
        bits = f" ({vals[-1]['val/bpb']:.3f} bits per byte)" if is_finite(vals[-1].get("val/bpb")) else ""
        table.append(("last validation loss", f"{vals[-1]['val/loss']:.4f}{bits}"))
    timed = [row for row in rows if is_finite(row.get("tokens")) and is_finite(row.get("seconds")) and row["step"]]
    if timed:
        step, tokens, seconds = timed[-1]["step"], timed[-1]["tokens"], timed[-1]["seconds"]
        table.append(("steps, tokens", f"{step:,}, {quantity(tokens)}"))
        table.append(("training time", clock(seconds)))
        if seconds > 0:
            table.append(("mean speed", f"{quantity(tokens / seconds)} tokens/s"))
    if (mfu := median_mfu(rows)) is not None:
        table.append(("MFU, median", f"{mfu:.1%}"))
    return table


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows)
    return f"<table>{cells}</table>"


def _evaluations(run_dir: Path) -> list[str]:
    """What `groundup eval` has found, a row a task."""
    results = read_results(run_dir)
    if not results:
        return []
    return ["<h2>Evaluation</h2>", _table([(name, summary(result)) for name, result in results.items()])]


def _time(rows: list[dict[str, Any]]) -> list[str]:
    """Where the time went: a bar and a number for each part."""
    parts = where_time_went(rows)
    total = sum(parts.values())
    if not total:
        return []
    cells = "".join(
        f"<tr><th>{html.escape(part)}</th><td class=n>{clock(seconds)}</td><td class=n>{seconds / total:.1%}</td>"
        f"<td class=bar><div style='width:{100 * seconds / total:.1f}%'></div></td></tr>"
        for part, seconds in parts.items()
    )
    return ["<h2>Where the time went</h2>", f"<table class=wide>{cells}</table>"]


def time_line(rows: list[dict[str, Any]]) -> str | None:
    """The same in one line, the largest part first; None where nothing was measured."""
    parts = where_time_went(rows)
    total = sum(parts.values())
    if not total:
        return None
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return "time: " + ", ".join(f"{part} {s / total:.1%}" for part, s in ordered if s / total >= 0.0005)
