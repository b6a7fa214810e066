"""loss.png and report.html: what a run did, in one picture and in one file that can be sent to friends.

The page carries its drawing inside and loads nothing from anywhere. It is drawn from `metrics.jsonl`, `run.json`,
`eval.json` and `portrait.json` alone, so it can be drawn again for any run folder at any time.
"""

import html
import json
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.config.io import dump_json, read_json
from groundup.config.printable import printable
from groundup.files.atomic import write_file
from groundup.files.layout import LOSS_PICTURE, METRICS, PORTRAIT, REPORT, RUN
from groundup.records.chart import Chart, Line, draw
from groundup.records.explain import TERMS, headline, smoothed, suggestions
from groundup.records.history import (
    best_row,
    is_finite,
    is_run,
    last_row,
    median_mfu,
    of_curve,
    read_run,
    samples,
    series,
    where_time_went,
    whole_looks,
)
from groundup.records.measured import of_last_text
from groundup.records.metrics import read_metrics
from groundup.records.plot import plot_loss
from groundup.records.results import read_results, result_line
from groundup.terminal.display import clock, quantity


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What run.json says of how a run came to be; nothing is insisted on, as it may be of another version.

    Resuming a run checks run.json by it. What has to live with a damaged file reads `RunHistory.facts`.
    """

    groundup: str = "of an unknown version"
    started: str = ""
    command: str = ""
    parameters: int | None = None
    bigram_loss: float | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    resolved: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Portrait:
    """portrait.json: one line as the model sees it (`inspection.portrait`)."""

    tokens: list[str]
    surprise: list[float | None]
    layer: int
    head: int
    kind: str | None
    attention: list[list[float]]


def write_report(run_dir: Path) -> None:
    """Draw loss.png and report.html from what the run folder holds. A run may have lost its run.json.

    Raises:
        UserError: The folder is not of a run, or one of its files cannot be read.
    """
    lost = is_run(run_dir) and not (run_dir / RUN).exists()
    run = RunFacts(config=read_run(run_dir).config) if lost else read_json(run_dir / RUN, RunFacts, more=True)
    rows = of_last_text(read_metrics(run_dir / METRICS))
    plot_loss(rows, run_dir / LOSS_PICTURE, baseline=run.bigram_loss, title=run_dir.name)
    write_file(run_dir / REPORT, _page(run_dir, run, rows).encode())


def _page(run_dir: Path, run: RunFacts, rows: list[dict[str, Any]]) -> str:
    chart = _curves(rows, run.bigram_loss)
    portrait = _read_portrait(run_dir / PORTRAIT)
    parts = [
        f"<h1>{html.escape(printable(run_dir.name))}</h1>",
        f"<p class=quiet>groundup {html.escape(run.groundup)} · {_when(run.started)}</p>",
        _headline(headline(rows, run.config, vocab_size=_whole(run.resolved.get("vocab_size")))),
        f"<h2>How it learned{_term('loss')}</h2>{chart.markup}" if chart else "",
        *_samples(rows, chart.end if chart else 0),
        *(_portrait(portrait) if portrait else ()),
        "<h2>What to try next</h2>",
        _next(suggestions(rows, run.config, printable(run_dir.as_posix()))),
        f"<h2>Numbers</h2>{_table(_results(run, rows))}",
        *_evaluations(run_dir),
        *_time(rows),
        "<h2>How to reproduce it</h2>",
        f"<pre>{_command(run.command)}</pre>",
        f"<h2>Machine</h2>{_table([(key, str(value)) for key, value in run.machine.items()])}",
        f"<h2>Settings</h2>{_table([(key, str(value)) for key, value in run.resolved.items()])}",
        f"<details><summary>config.json</summary><pre>{html.escape(dump_json(run.config))}</pre></details>",
    ]
    data = json.dumps({"lines": chart.lines if chart else [], "attention": portrait.attention if portrait else []})
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>{html.escape(printable(run_dir.name))}</title><style>{_asset('report.css')}</style>\n"
        + "\n".join(parts)
        + f"\n<script type=application/json id=data>{data}</script><script>{_asset('report.js')}</script>\n</html>\n"
    )


def _when(stamp: str) -> str:
    """A time as people write it, which does not break on a phone."""
    try:
        said = f"{datetime.fromisoformat(stamp).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        said = stamp
    return f"<span class=whole>{html.escape(said)}</span>"


def _read_portrait(path: Path) -> Portrait | None:
    if not path.exists():
        return None
    seen = read_json(path, Portrait)
    if not len(seen.tokens) == len(seen.surprise) == len(seen.attention):
        raise UserError(f"{path}: tokens, surprise and attention must be equally long")
    return seen


def _asset(name: str) -> str:
    return (resources.files("groundup.records") / "page" / name).read_text(encoding="utf-8")


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _curves(rows: list[dict[str, Any]], bigram: float | None) -> Chart | None:
    """Training, smoothed over raw, and validation. What was measured before the first step is no part of a curve."""
    trained = [row for row in of_curve(rows) if row.get("step")]
    train, val = series(trained, "tokens", "train/loss"), series(trained, "tokens", "val/loss")
    return draw(
        [
            Line("raw", *train, named=False),
            Line("training", train[0], smoothed(train[1]), said="training, smoothed"),
            Line("validation", *val, dots=True),
        ],
        baseline=None if bigram is None else (f"bigram {bigram:.3f}", bigram),
        x_label="tokens learned from",
        y_label="loss in nats per token",
        show=lambda x: quantity(x) if x else "0",
    )


def _headline(numbers: list[tuple[str, str]]) -> str:
    cells = "".join(f"<div><b>{html.escape(a)}</b><span>{html.escape(b)}</span></div>" for a, b in numbers)
    return f"<div class=numbers>{cells}</div>"


def _samples(rows: list[dict[str, Any]], end: float) -> list[str]:
    """What the model wrote on its way: what its kept weights write, and a slider to the texts of other steps."""
    losses = {row["step"]: row["val/loss"] for row in whole_looks(rows)}
    training = {row["step"]: row["train/loss"] for row in rows if is_finite(row.get("train/loss"))}
    tokens = {row["step"]: row["tokens"] for row in rows if is_finite(row.get("tokens"))}
    written = samples(rows)
    if not written:
        return []
    last = len(written) - 1
    shown = next((i for i, sample in enumerate(written) if sample.kept), last)
    texts = []
    for i, sample in enumerate(written):
        step = sample.step
        near = max((at for at in training if at <= step), default=None)
        loss = ""
        if step in losses:
            loss = f", validation loss {losses[step]:.3f}"
        elif near is not None:
            loss = f", training loss {training[near]:.3f}{'' if near == step else f' at step {near:,}'}"
        share = f" data-share={tokens[step] / end:.4f}" if end and tokens.get(step) else ""
        by = "the weights that were kept, " if sample.kept else ""
        when = f"after step {step:,}" if step else "before the first step"
        texts.append(
            f"<div class=sample{share}{'' if i == shown else ' hidden'}><p class=quiet>{by}{when}{loss}</p>"
            f"<pre>{html.escape(sample.text)}</pre></div>"
        )
    slider = f"<input type=range min=0 max={last} value={shown} aria-label='which sample' hidden>" if last else ""
    return ["<h2>What it writes</h2>", slider, *texts]


def _portrait(seen: Portrait) -> list[str]:
    """A line tinted by surprise, and the same line by what one head takes from it."""
    surprise = ""
    for token, loss in zip(seen.tokens, seen.surprise, strict=True):
        tint, says = (0.0, "") if loss is None else (0.75 * (1 - math.exp(-max(0, loss) / 2)), f"{loss:.2f} nats")
        surprise += f"<i style='background:rgb(var(--heat) / {tint:.2f})' title='{says}'>{html.escape(token)}</i>"
    looks = "".join(f"<i>{html.escape(token)}</i>" for token in seen.tokens)
    kind = {"previous": "mostly at the token before", "duplicate": "at the same token, earlier",
            "induction": "at what followed the same token, earlier"}.get(seen.kind or "", seen.kind)  # fmt: skip
    named = f"Layer {seen.layer}, head {seen.head}"
    weak = f"No head has a clear pattern. {named} comes closest."
    which = f"{named}, which looks {html.escape(kind)}." if kind else weak
    return [
        f"<h2>How it reads{_term('surprise')}</h2>",
        "<p class=quiet>Text that it has never seen: the stronger its color, the less it expected a token.</p>",
        f"<div class=text>{surprise}</div>",
        f"<h2>Where a head looks{_term('attention')}</h2>",
        f"<p class=quiet>{which} Point at a letter, tap it, or go there by arrow keys: the stronger the color of"
        " another, the more it takes from that one.</p>",
        f"<div class='text looks'>{looks}</div>",
    ]


def _term(word: str) -> str:
    asks = f"<summary aria-label='what does {word} mean?'>?</summary>"
    return f" <details class=term>{asks}<p>{html.escape(TERMS[word])}</p></details>"


def _next(advice: list[tuple[str, str]]) -> str:
    items = "".join(f"<li>{html.escape(why)}<code>{_command(command)}</code></li>" for why, command in advice)
    return f"<ul class=next>{items}</ul>"


def _command(command: str) -> str:
    """A command whose lines break at spaces: browsers break after a hyphen, too, and tear flags apart."""
    words = re.split("( +)", html.escape(command))
    return "".join(f"<span class=whole>{word}</span>" if "-" in word else word for word in words)


def _results(run: RunFacts, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The numbers a reader looks for first."""
    table = [] if run.parameters is None else [("parameters", f"{run.parameters:,}")]
    if run.bigram_loss is not None:
        table.append(("bigram, validation loss", f"{run.bigram_loss:.4f}"))
    if best := best_row(rows, run.config):
        table.append(("best validation loss", f"{best['val/loss']:.4f} at step {best['step']}"))
    if last := last_row(rows, run.config):
        bits = f" ({last['val/bpb']:.3f} bits per byte)" if is_finite(last.get("val/bpb")) else ""
        table.append(("last validation loss", f"{last['val/loss']:.4f}{bits}"))
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
    cells = "".join(
        f"<tr><th>{html.escape(key)}{''.join(_term(word) for word in TERMS if key.startswith(word))}</th>"
        f"<td>{html.escape(value)}</td></tr>"
        for key, value in rows
    )
    return f"<table>{cells}</table>"


def _evaluations(run_dir: Path) -> list[str]:
    """What `groundup eval` has found, a row a task, with the step of the weights: the run may have gone on since."""
    results = read_results(run_dir)
    if not results:
        return []
    steps = {name: f", step {step:,}" for name, r in results.items() if type(step := r.get("step")) is int}
    lines = [(name + steps.get(name, ""), result_line(result)) for name, result in results.items()]
    return ["<h2>Evaluation</h2>", _table(lines)]


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
