"""groundup runs list|compare|plot: what has been trained, side by side. Needs no torch."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from groundup.config.errors import UsageError
from groundup.config.printable import printable
from groundup.records.facts import facts_of, machine_of, number, settings_that_differ
from groundup.records.history import MISSING, Axis, RunHistory, find_runs, read_run
from groundup.terminal.actions import pick_action
from groundup.terminal.parse import parse
from groundup.terminal.say import say, warn

if TYPE_CHECKING:
    from rich.table import Table

ACTIONS = {
    "list": "every run below a folder: list [DIR]",
    "compare": "results, and the settings that differ: compare RUN RUN ...",
    "plot": "loss curves of runs in one picture: plot RUN ... --x tokens|time|flops --out PNG",
}


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """One line for every run below a folder."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = Path("runs")
    """Where the run folders lie."""


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
    """Against tokens learned from, time spent in training steps, or training FLOPs."""
    out: Path = Path("runs.png")
    """The picture."""

    def __post_init__(self) -> None:
        """Refuse what matplotlib would refuse later, in its own words."""
        if not self.runs:
            raise UsageError("name at least one run to draw")
        if self.out.suffix.lower() != ".png":
            raise UsageError(f"out must end with .png, got {self.out}")


def main(argv: Sequence[str]) -> int:
    """Run one of the actions."""
    action = pick_action(argv, command="runs", actions=ACTIONS, rest="[options]")
    if action is None:
        return 0
    prog = f"groundup runs {action}"
    if action == "list":
        return _list(parse(ListOptions, argv[1:], prog=prog).folder)
    if action == "compare":
        return _compare(_read(parse(CompareOptions, argv[1:], prog=prog).runs))
    return _plot(parse(PlotOptions, argv[1:], prog=prog))


def _read(paths: Sequence[Path]) -> list[RunHistory]:
    """The runs that are named, and those in folders that are named."""
    return [read_run(each) for path in paths for each in (find_runs(path) if path.is_dir() else []) or [path]]


def _list(folder: Path) -> int:
    runs = [read_run(path) for path in find_runs(folder)]
    if not runs:
        say(f"there is no run in {folder}")
        return 0
    table = _new_table()
    table.add_column("name", overflow="fold")
    for title in ("model", "params", "steps", "tokens", "best val loss", "tokens/s"):
        table.add_column(title, justify="left" if title == "model" else "right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for run in runs:
        facts = facts_of(run)
        table.add_row(printable(run.name), *[facts[name] for name in ("model", "parameters", "steps", "tokens")],
                      number(run.best.get("val/loss")), facts["tokens/s"], run.state)  # fmt: skip
    _show(table)
    _warn_of_damage(runs)
    return 0


def _compare(runs: list[RunHistory]) -> int:
    if len(runs) < 2:  # one is no comparison
        raise UsageError(f"name at least two runs to compare, got {len(runs)} (see groundup runs compare --help)")
    from rich.text import Text

    from groundup.records.plot import distinct_names

    table = _new_table()
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
    _show(table)
    _warn_of_damage(runs)
    return 0


def _plot(options: PlotOptions) -> int:
    from groundup.records.plot import plot_runs

    runs = _read(options.runs)
    plot_runs(runs, options.out, axis=options.x)
    say(f"drew {len(runs)} {'run' if len(runs) == 1 else 'runs'} in {options.out}")
    _warn_of_damage(runs)
    return 0


def _value(value: Any) -> str:
    """A JSON value as a person writes it."""
    if isinstance(value, str):
        return printable(value if len(value) <= 40 else f"{value[:12]}...{value[-25:]}")
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _new_table() -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False)


def _show(table: "Table") -> None:
    """Print a table; in a pipe nothing is wrapped, and folder names are never taken for markup."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def _warn_of_damage(runs: list[RunHistory]) -> None:
    for run in runs:
        if run.damaged:
            lines = "1 damaged line" if run.damaged == 1 else f"{run.damaged} damaged lines"
            warn(f"{lines} of {run.path / 'metrics.jsonl'} left out")
