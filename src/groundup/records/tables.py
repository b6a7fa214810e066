"""Runs side by side: as tables for a terminal, and as one for other programs."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from groundup.config.printable import printable
from groundup.records.facts import machine_of, run_facts, settings_that_differ
from groundup.records.history import MISSING, RunHistory, is_finite
from groundup.records.metrics import KEPT_STEP
from groundup.records.plot import distinct_names
from groundup.terminal.tables import columns_that_fit, new_table

if TYPE_CHECKING:
    from rich.table import Table

CIRCUMSTANCES = ("version", "data", "path", "how", "model", "groundup", "seconds", "step")
"""What eval.json keeps beside the scores themselves."""

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


def compare_table(runs: Sequence[RunHistory]) -> "Table":
    """A column per run: what came of it, then the scores, settings and machines in which not all agree."""
    from rich.text import Text

    table = new_table()
    table.add_column("")
    for name in distinct_names(runs):
        table.add_column(printable(name), justify="right", overflow="fold")
    facts = [run_facts(run) for run in runs]
    for name in facts[0]:
        table.add_row(name, *[column[name] for column in facts])
    scores = dict.fromkeys(key for run in runs for key in run.scores if key.rpartition(".")[2] not in CIRCUMSTANCES)
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
    return table


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
