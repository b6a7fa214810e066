"""Runs that differ in their seed alone, as one: mean and deviation of what they reached."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.records.history import RunHistory, differences, is_finite, of_curve
from groundup.terminal.tables import new_table

if TYPE_CHECKING:
    from rich.table import Table

WITHOUT = ("name", "out_dir", "seed")
"""Settings in which runs of one group may differ."""


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of the same settings.

    Args:
        settings: In which the group differs from the others, with its values.
        runs: One per seed.
    """

    settings: dict[str, Any]
    runs: list[RunHistory]

    @property
    def name(self) -> str:
        """Its settings in one line."""
        return ", ".join(f"{key} {value}" for key, value in self.settings.items()) or "all"

    @property
    def best(self) -> list[float]:
        """The best validation loss of each run that has one."""
        return [run.best["val/loss"] for run in self.runs if is_finite(run.best.get("val/loss"))]

    def curve(self) -> tuple[list[int], list[list[float]]]:
        """Steps at which every run of the group was validated, and the losses of all runs there."""
        losses = [
            {
                row["step"]: row["val/loss"]
                for row in of_curve(run.rows)
                if row["step"] and is_finite(row.get("val/loss"))
            }
            for run in self.runs
        ]
        steps = sorted(set.intersection(*map(set, losses)))
        return steps, [[run[step] for run in losses] for step in steps]


def group(runs: Sequence[RunHistory]) -> list[Group]:
    """Put runs together that differ in their seed alone, in the order in which they come."""
    configs = [{key: value for key, value in run.config.items() if key not in WITHOUT} for run in runs]
    keys = differences(configs)
    groups: dict[str, Group] = {}
    for i, run in enumerate(runs):
        settings = {key: values[i] for key, values in keys.items()}
        groups.setdefault(repr(settings), Group(settings, [])).runs.append(run)
    return list(groups.values())


def mean_and_deviation(values: Sequence[float]) -> str:
    """1.2345 ± 0.0012: the mean, and the sample standard deviation where there are two or more."""
    if not values:
        return "-"
    return f"{statistics.fmean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def table(groups: Sequence[Group]) -> "Table":
    """A row per group, the lowest mean loss first."""
    result = new_table()
    for key in groups[0].settings or {"": None}:
        result.add_column(key, overflow="fold")
    for title in ("runs", "best val loss", "lowest"):
        result.add_column(title, justify="right", no_wrap=True)
    for found in sorted(groups, key=lambda g: statistics.fmean(g.best) if g.best else float("inf")):
        lowest = f"{min(found.best):.4f}" if found.best else "-"
        cells = [str(value) for value in found.settings.values()] or ["all"]
        result.add_row(*cells, str(len(found.runs)), mean_and_deviation(found.best), lowest)
    return result
