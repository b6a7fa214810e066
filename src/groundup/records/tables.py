"""Runs side by side: as tables for a terminal, and as one for other programs."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from groundup.config.printable import printable
from groundup.records.facts import machine_of, run_facts, settings_that_differ
from groundup.records.history import MISSING, RunHistory, is_finite
from groundup.records.metrics import KEPT_STEP
from groundup.records.plot import distinct_names
from groundup.terminal.tables import GAP, columns_that_fit, new_table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

CIRCUMSTANCES = ("version", "data", "path", "how", "model", "groundup", "seconds")
"""What eval.json keeps beside the scores and the step of the weights that have them."""
WRAPPED = 15
"""Places for a value where runs are too many for the terminal's width: words go on in a second line."""
NARROWEST = 8
"""Places that a value has on any terminal."""

Order = Literal["name", "loss", "started", "speed"]


def in_order(runs: list[RunHistory], by: Order) -> list[RunHistory]:
    """By name, loss (lowest first), start (latest first) or speed; runs that have no such value come last."""
    if by == "loss":
        return sorted(runs, key=lambda run: run.best.get("val/loss", math.inf))
    if by == "started":
        return sorted(runs, key=lambda run: str(run.facts.get("started", "")), reverse=True)
    return sorted(runs, key=lambda run: -(run.tokens_per_sec or 0.0)) if by == "speed" else runs


def list_table(runs: Sequence[RunHistory], width: int) -> tuple["Table", list[str]]:
    """A row per run, and the titles of the columns that a terminal of so many characters has no room for."""
    facts = [run_facts(run) for run in runs]
    cells = {"name": [printable(run.name) for run in runs]}
    # The most important first: what a narrow terminal has no room for is left out from the end.
    for title in ("best val loss", "state", "steps", "tokens/s", "parameters", "tokens", "model"):
        cells[title] = [row[title].partition(" at ")[0] for row in facts]
    fitting = columns_that_fit(cells, width)
    table = new_table()
    for title in fitting:
        side: Literal["left", "right"] = "left" if title in ("name", "model", "state") else "right"
        table.add_column(title, justify=side, no_wrap=title != "name", overflow="fold")
    for row in zip(*fitting.values(), strict=True):
        table.add_row(*row)
    return table, [title for title in cells if title not in fitting]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A column per run, in as many tables as the terminal's width asks for: keys and names stay whole.

    Args:
        names: What stands above each column.
        sections: Titles, and rows of each: a key, and a value per run.
    """

    names: Sequence[str]
    sections: Sequence[tuple[str, dict[str, list[str]]]]

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> Iterator["Table"]:
        """The tables, one below the other."""
        room = options.max_width - GAP - max(_width(key) for title, rows in self.sections for key in (title, *rows))
        widths = [
            max(_width(text) for text in (name, *(row[i] for _, rows in self.sections for row in rows.values())))
            for i, name in enumerate(self.names)
        ]
        if sum(widths) + GAP * len(widths) > room:
            most = max(NARROWEST, room - GAP)
            widths = [
                min(most, width, max(WRAPPED, _width(name))) for name, width in zip(self.names, widths, strict=True)
            ]
        tables: list[dict[int, int]] = [{}]
        for i, width in enumerate(widths):
            if tables[-1] and sum(tables[-1].values()) + width + GAP * (len(tables[-1]) + 1) > room:
                tables.append({})
            tables[-1][i] = width
        yield from map(self._table, tables)

    def _table(self, widths: dict[int, int]) -> "Table":
        """Some of the runs, by their number, with the width of each column."""
        from rich.text import Text

        table = new_table()
        table.add_column("", overflow="fold")
        for i, width in widths.items():
            table.add_column(self.names[i], justify="right", overflow="fold", width=width)
        for title, rows in self.sections:
            if title:
                table.add_section()
                table.add_row(Text(title, style="bold"))
            for key, values in rows.items():
                table.add_row(key, *(_within(values[i], width) for i, width in widths.items()))
        return table


def compare_table(runs: Sequence[RunHistory]) -> Comparison:
    """What came of each run, then the scores, settings and machines in which not all agree."""
    facts = [run_facts(run) for run in runs]
    scores = dict.fromkeys(key for run in runs for key in run.scores if key.rpartition(".")[2] not in CIRCUMSTANCES)
    sections = [("", {name: [column[name] for column in facts] for name in facts[0]})]
    for title, rows in (
        ("scores", {key: [run.scores.get(key, MISSING) for run in runs] for key in scores}),
        ("settings that differ", settings_that_differ([run.config for run in runs])),
        ("machines that differ", settings_that_differ([machine_of(run) for run in runs])),
    ):
        if rows:
            sections.append(
                (title, {printable(f"  {key}"): [_value(value) for value in row] for key, row in rows.items()})
            )
    return Comparison([printable(name) for name in distinct_names(runs)], sections)


def _within(text: str, width: int) -> str:
    """A text whose words fit into some places: of a longer word, both ends."""
    if _width(text) <= width:
        return text
    begin = (width - 3) // 3
    ends = (word if _width(word) <= width else f"{word[:begin]}...{word[begin + 3 - width :]}" for word in text.split())
    return " ".join(ends)


def _width(text: str) -> int:
    """Places that a text takes on a terminal, where Chinese letters take two."""
    from rich.cells import cell_len

    return cell_len(text)


def as_csv(runs: Sequence[RunHistory]) -> str:
    """A row per line of metrics, a column per number that any of the runs logged."""
    logged = dict.fromkeys(key for run in runs for row in run.rows for key, value in row.items() if is_finite(value))
    keys = [key for key in logged if key != KEPT_STEP]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["run", *keys], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run, name in zip(runs, distinct_names(runs), strict=True):
        for row in run.rows:
            if any(is_finite(row.get(key)) for key in keys if key != "step"):
                writer.writerow({"run": name, **row})
    return text.getvalue()


def _value(value: Any) -> str:
    """A JSON value as a person writes it."""
    if isinstance(value, str):
        return printable(value if len(value) <= 40 else f"{value[:12]}...{value[-25:]}")
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
