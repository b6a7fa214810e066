"""groundup runs list|compare|plot|csv: what has been trained, side by side. Needs no torch."""

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from groundup.config.errors import UsageError
from groundup.config.printable import printable
from groundup.files.atomic import write_file
from groundup.records.facts import facts_of, machine_of, settings_that_differ
from groundup.records.history import MISSING, Axis, RunHistory, find_runs, is_finite, read_run
from groundup.terminal.actions import pick_action
from groundup.terminal.parse import parse
from groundup.terminal.say import say, warn
from groundup.terminal.tables import columns_that_fit, new_table, show

PICTURES = (".png", ".svg", ".pdf")

ACTIONS = {
    "list": "every run below a folder: list [DIR] --sort name|loss|started|speed",
    "compare": "results, and the settings that differ: compare RUN RUN ...",
    "plot": "curves of runs in one picture: plot RUN ... --x steps|tokens|time|flops --y METRIC --out PICTURE",
    "csv": "all numbers of runs as one table for other programs: csv RUN ... --out FILE",
}


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """One line for every run below a folder."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = Path("runs")
    """Where the run folders lie."""
    sort: Literal["name", "loss", "started", "speed"] = "name"
    """By name, best validation loss (lowest first), start (latest first), or tokens per second (fastest first)."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Results of runs side by side, and the settings in which they differ."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN ...")]
    """Run folders, or a folder of runs."""


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Draw the loss curves of runs into one picture."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run folders, or a folder of runs."""
    x: Axis = "tokens"
    """Against steps, tokens learned from, time spent in training steps, or training FLOPs."""
    y: str = "loss"
    """What to draw: loss (validation over training), or one metric, as optim/grad_norm or perf/tokens_per_sec."""
    smooth: int = 0
    """Neighbors on either side that a training value is averaged with."""
    out: Path = Path("runs.png")
    """The picture: .png, .svg or .pdf."""

    def __post_init__(self) -> None:
        """Refuse what matplotlib would refuse later, in its own words."""
        if not self.runs:
            raise UsageError("name at least one run to draw")
        if self.out.suffix.lower() not in PICTURES:
            raise UsageError(f"out must end with {', '.join(PICTURES)}, got {self.out}")
        if not 0 <= self.smooth <= 10_000:
            raise UsageError(f"smooth must be 0 to 10,000 neighbors, got {self.smooth}")


@dataclass(frozen=True, kw_only=True)
class CsvOptions:
    """Write all numbers that runs logged as one table, for a spreadsheet or pandas."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...")]
    """Run folders."""
    out: Path | None = None
    """The file; without it the table is printed."""

    def __post_init__(self) -> None:
        """Without a run there is no table."""
        if not self.runs:
            raise UsageError("name at least one run to write")


def main(argv: Sequence[str]) -> int:
    """Run one of the actions."""
    action = pick_action(argv, command="runs", actions=ACTIONS, rest="[options]")
    if action is None:
        return 0
    prog = f"groundup runs {action}"
    if action == "list":
        return _list(parse(ListOptions, argv[1:], prog=prog))
    if action == "csv":
        return _csv(parse(CsvOptions, argv[1:], prog=prog))
    if action == "compare":
        return _compare(_read(parse(CompareOptions, argv[1:], prog=prog).runs))
    return _plot(parse(PlotOptions, argv[1:], prog=prog))


def _read(paths: Sequence[Path]) -> list[RunHistory]:
    """The runs that are named, and those in folders that are named."""
    return [read_run(each) for path in paths for each in (find_runs(path) if path.is_dir() else []) or [path]]


def _list(options: ListOptions) -> int:
    runs = [read_run(path) for path in find_runs(options.folder)]
    if not runs:
        say(f"there is no run in {options.folder}")
        return 0
    runs = _sorted(runs, options.sort)
    facts = [facts_of(run) for run in runs]
    cells = {"name": [printable(run.name) for run in runs]}
    # The dearest first: what a narrow terminal has no room for is left out from the end.
    for title in ("best val loss", "state", "steps", "tokens/s", "parameters", "tokens", "model"):
        cells[title] = [row[title].partition(" at ")[0] for row in facts]
    fitting = columns_that_fit(cells, shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000)
    table = new_table()
    for title in fitting:
        side: Literal["left", "right"] = "left" if title in ("name", "model", "state") else "right"
        table.add_column(title, justify=side, no_wrap=title != "name", overflow="fold")
    for row in zip(*fitting.values(), strict=True):
        table.add_row(*row)
    show(table)
    if left_out := [title for title in cells if title not in fitting]:
        say(f"a wider terminal also shows: {', '.join(left_out)}")
    _warn_of_damage(runs)
    return 0


def _sorted(runs: list[RunHistory], by: str) -> list[RunHistory]:
    """In the order asked for; runs that do not have such a value come last."""
    if by == "loss":
        return sorted(runs, key=lambda run: run.best.get("val/loss", math.inf))
    if by == "started":
        return sorted(runs, key=lambda run: str(run.facts.get("started", "")), reverse=True)
    return sorted(runs, key=lambda run: -(run.tokens_per_sec or 0.0)) if by == "speed" else runs


def _csv(options: CsvOptions) -> int:
    """One row per line of metrics, one column per number that any of the runs logged."""
    from groundup.records.plot import distinct_names

    runs = _read(options.runs)
    keys = dict.fromkeys(key for run in runs for row in run.rows for key, value in row.items() if is_finite(value))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["run", *keys], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run, name in zip(runs, distinct_names(runs), strict=True):
        for row in run.rows:
            if any(is_finite(row.get(key)) for key in keys if key != "step"):
                writer.writerow({"run": name, **row})
    if options.out is None:
        sys.stdout.write(text.getvalue())
    else:
        write_file(options.out, text.getvalue().encode())
        say(f"wrote {len(keys)} columns of {len(runs)} {'run' if len(runs) == 1 else 'runs'} to {options.out}")
    _warn_of_damage(runs)
    return 0


def _compare(runs: list[RunHistory]) -> int:
    if len(runs) < 2:  # one is no comparison
        raise UsageError(f"name at least two runs to compare, got {len(runs)} (see groundup runs compare --help)")
    from rich.text import Text

    from groundup.records.plot import distinct_names

    table = new_table()
    table.add_column("")
    for name in distinct_names(runs):
        table.add_column(printable(name), justify="right", overflow="fold")
    facts = [facts_of(run) for run in runs]
    for name in facts[0]:
        table.add_row(name, *[column[name] for column in facts])
    scores = dict.fromkeys(key for run in runs for key in run.scores)
    for title, rows in (
        ("scores", {key: [run.scores.get(key, MISSING) for run in runs] for key in scores}),
        ("settings that differ", settings_that_differ([run.config for run in runs])),
        ("machines that differ", settings_that_differ([machine_of(run) for run in runs])),
    ):
        if rows:
            table.add_section()
            table.add_row(Text(title, style="bold"))
        for key, values in rows.items():
            table.add_row(printable(f"  {key}"), *map(_value, values))
    show(table)
    _warn_of_damage(runs)
    return 0


def _plot(options: PlotOptions) -> int:
    from groundup.records.plot import plot_runs

    runs = _read(options.runs)
    plot_runs(runs, options.out, axis=options.x, y=options.y, smooth=options.smooth)
    say(f"drew {len(runs)} {'run' if len(runs) == 1 else 'runs'} in {options.out}")
    _warn_of_damage(runs)
    return 0


def _value(value: Any) -> str:
    """A JSON value as a person writes it."""
    if isinstance(value, str):
        return printable(value if len(value) <= 40 else f"{value[:12]}...{value[-25:]}")
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _warn_of_damage(runs: list[RunHistory]) -> None:
    for run in runs:
        if run.damaged:
            lines = "1 damaged line" if run.damaged == 1 else f"{run.damaged} damaged lines"
            warn(f"{lines} of {run.path / 'metrics.jsonl'} left out")
