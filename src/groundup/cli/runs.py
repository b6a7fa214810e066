"""groundup runs list|compare|plot|csv: what has been trained, side by side. Needs no torch."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from groundup.config.errors import UsageError
from groundup.config.printable import counted
from groundup.files.atomic import write_file
from groundup.files.layout import METRICS
from groundup.files.new import refuse_unwritable
from groundup.records.history import Axis, RunHistory, read_run, read_runs
from groundup.records.tables import Order, as_csv, compare_table, in_order, list_table
from groundup.terminal.actions import pick_action
from groundup.terminal.meant import RUNS_MEANT
from groundup.terminal.parse import parse
from groundup.terminal.say import say, warn
from groundup.terminal.tables import print_table

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
    sort: Order = "name"
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
        """Without a run there is no table, which never takes the place of a file of another kind."""
        if not self.runs:
            raise UsageError("name at least one run to write")
        if self.out is not None and self.out.suffix.lower() != ".csv":
            raise UsageError(f"out must end with .csv, got {self.out}")


def main(argv: Sequence[str]) -> int:
    """Run one of the actions."""
    action = pick_action(argv, command="runs", actions=ACTIONS, rest="[options]", meant=RUNS_MEANT)
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
    return [run for path in paths for run in (path.is_dir() and read_runs(path, warn)) or [read_run(path)]]


def _list(options: ListOptions) -> int:
    runs = in_order(read_runs(options.folder, warn), options.sort)
    if not runs:
        say(f"there is no run in {options.folder}")
        return 0
    table, left_out = list_table(runs, shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000)
    print_table(table)
    if left_out:
        say(f"a wider terminal also shows: {', '.join(left_out)}")
    _warn_of_damage(runs)
    return 0


def _csv(options: CsvOptions) -> int:
    if options.out is not None:
        refuse_unwritable(options.out)
    runs = _read(options.runs)
    text = as_csv(runs)
    if options.out is None:
        sys.stdout.write(text)
    else:
        write_file(options.out, text.encode())
        rows = text.count("\n") - 1
        say(f"wrote {counted(rows, 'row')} of {counted(len(runs), 'run')} to {options.out}")
    _warn_of_damage(runs)
    return 0


def _compare(runs: list[RunHistory]) -> int:
    if len(runs) < 2:  # one is no comparison
        raise UsageError(f"name at least two runs to compare, got {len(runs)} (see groundup runs compare --help)")
    print_table(compare_table(runs))
    _warn_of_damage(runs)
    return 0


def _plot(options: PlotOptions) -> int:
    from groundup.terminal.working import Working

    refuse_unwritable(options.out)
    runs = _read(options.runs)
    with Working("drawing"):
        from groundup.records.plot import plot_runs

        plot_runs(runs, options.out, axis=options.x, y=options.y, smooth=options.smooth)
    say(f"drew {counted(len(runs), 'run')} in {options.out}")
    _warn_of_damage(runs)
    return 0


def _warn_of_damage(runs: list[RunHistory]) -> None:
    for run in runs:
        if run.damaged:
            warn(f"{counted(run.damaged, 'damaged line')} of {run.path / METRICS} left out")
