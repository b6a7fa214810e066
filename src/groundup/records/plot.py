"""Curves as pictures: of one run for its report, of several side by side, of groups. Drawn without a display."""

import difflib
import io
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.config.errors import UserError
from groundup.config.printable import printable
from groundup.files.atomic import write_file
from groundup.records.explain import smoothed
from groundup.records.groups import Group, mean_and_deviation
from groundup.records.history import Axis, RunHistory, of_curve, series, whole_looks
from groundup.terminal.display import clock, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c6d31")
"""Okabe and Ito's (2008), which color-blind people can tell apart; their yellow, too pale for a line, made a brown."""
DASHES = ("-", "--", ":", "-.")
"""A ninth run has the first's color, dashed."""

X_LABELS: dict[Axis, str] = {
    "steps": "steps",
    "tokens": "tokens learned from",
    "time": "training time",
    "flops": "training FLOPs",
}
Y_LABEL = "loss (nats per token)"


def plot_loss(rows: list[dict[str, Any]], path: Path, *, baseline: float | None, title: str) -> None:
    """Training loss, smoothed over what was measured, and validation loss, with the bigram's loss as a line to beat."""
    figure, axes = _new_axes("tokens")
    rows = [row for row in of_curve(rows) if row["step"]]  # nothing was learned along a line from step 0
    train, val = series(rows, "tokens", "train/loss"), series(rows, "tokens", "val/loss")
    if train[0]:
        axes.plot(*train, color="#8fb8de", linewidth=1, alpha=0.4)
        axes.plot(train[0], smoothed(train[1]), color="#8fb8de", linewidth=1.5, label="training, smoothed")
    if val[0]:
        label = f"validation, {val[1][-1]:.3f}" if whole_looks(rows) else "validation, of a part of the split"
        axes.plot(*val, color="#0b4f8a", linewidth=2, marker="o", markersize=4, label=label)
    if baseline is not None:
        axes.axhline(baseline, color="#b35900", linestyle="--", linewidth=1, label=f"bigram, {baseline:.3f}")
    axes.set_title(printable(title), parse_math=False)  # a folder's name may hold dollars
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best")
    _save(figure, path)


def plot_runs(runs: Sequence[RunHistory], path: Path, *, axis: Axis, y: str = "loss", smooth: int = 0) -> None:
    """Curves of several runs.

    Args:
        runs: What to draw, at least one.
        path: The picture; its suffix says in which format.
        axis: Against what.
        y: "loss" draws validation as a thick line and training as a thin one of the same color; or a metric's name.
        smooth: Neighbors on either side that values of training are averaged with.

    Raises:
        UserError: None of them has such values, or the file cannot be written.
    """
    figure, axes = _new_axes(axis)
    thin, thick = ("train/loss", "val/loss") if y == "loss" else (None, y)
    handles, labels = [], []
    for i, (run, label) in enumerate(zip(runs, distinct_names(runs), strict=True)):
        color, dashes = COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)]
        learned = replace(run, rows=[row for row in run.rows if row.get("step")])  # as `plot_loss` has it
        below = learned.series(thin, axis) if thin else ([], [])
        above = learned.series(thick, axis)
        if below[0]:
            values = smoothed(below[1], reach=smooth)
            (line,) = axes.plot(below[0], values, color=color, linestyle=dashes, linewidth=0.8, alpha=0.45)
        if above[0]:
            values = above[1] if thick.startswith("val/") else smoothed(above[1], reach=smooth)
            marks: dict[str, Any] = {"marker": "o", "markersize": 3.5} if thick.startswith("val/") else {}
            (line,) = axes.plot(above[0], values, color=color, linestyle=dashes, linewidth=2, **marks)
        if below[0] or above[0]:
            best = run.best.get("val/loss") if y == "loss" else None
            handles.append(line)
            labels.append(label if best is None else f"{label}: {best:.4f}")
    if not handles:
        raise UserError(_nothing(runs, y))
    if axis == "time":
        _clock_ticks(axes)
    _legend(figure, axes, handles, labels, title="best validation loss" if y == "loss" else "")
    if y == "loss":
        axes.set_title("thick: validation, thin: training", fontsize="medium", color="#59636e")
    else:
        axes.set_ylabel(y, parse_math=False)
    _save(figure, path)


def _nothing(runs: Sequence[RunHistory], y: str) -> str:
    """Why there is no picture, and what there is to draw."""
    where = ", ".join(str(run.path) for run in runs)
    if y == "loss":
        return f"nothing to draw: {where} logged no loss"
    known = sorted({key for run in runs for row in run.rows for key in row if "/" in key})
    near = difflib.get_close_matches(y, ["loss", *known], n=1)
    hint = f"did you mean {near[0]}?" if near else f"logged were {', '.join(known) or 'no metrics'}"
    return f"nothing to draw: {where} logged no {y}; {hint}"


def plot_bands(groups: Sequence[Group], path: Path) -> None:
    """Validation loss of groups of runs against steps: the mean as a line, its standard deviation as a band.

    Args:
        groups: Runs that differ in their seed alone.
        path: The picture; its suffix says in which format.

    Raises:
        UserError: No group was validated twice, or the file cannot be written.
    """
    figure, axes = _new_axes("steps")
    handles, labels = [], []
    for i, group in enumerate(groups):
        steps, losses = group.curve()
        if not steps:
            continue
        color, dashes = COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)]
        mean = [statistics.fmean(values) for values in losses]
        (line,) = axes.plot(steps, mean, color=color, linestyle=dashes, linewidth=2, marker="o", markersize=3.5)
        if len(group.runs) > 1:
            deviation = [statistics.stdev(values) for values in losses]
            low = [a - b for a, b in zip(mean, deviation, strict=True)]
            high = [a + b for a, b in zip(mean, deviation, strict=True)]
            axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
        handles.append(line)
        labels.append(f"{group.name}: {mean_and_deviation(group.best)}")
    if not handles:
        raise UserError("nothing to draw: no run was validated after its first step")
    _legend(figure, axes, handles, labels, title="best validation loss")
    axes.set_title("mean over seeds, and one standard deviation", fontsize="medium", color="#59636e")
    _save(figure, path)


def _legend(figure: "Figure", axes: "Axes", handles: list[Any], labels: list[str], *, title: str) -> None:
    """Inside the picture when it is small, else beside it."""
    beside = len(labels) > 5 or max(map(len, labels)) > 32
    options: dict[str, Any] = {"frameon": False, "title": title or None, "alignment": "left"}
    if beside:
        figure.set_size_inches(11, max(4.5, 1 + 0.22 * len(labels)))
        legend = figure.legend(handles, ["x"] * len(handles), loc="outside right upper", **options)
    else:
        legend = axes.legend(handles, ["x"] * len(handles), loc="best", **options)
    for text, label in zip(legend.get_texts(), map(printable, labels), strict=True):
        # Set by hand: a name may hold dollars, or begin with the underscore that hides a label.
        text.set_parse_math(False)
        text.set_text(label if len(label) <= 45 else f"{label[:15]}...{label[-27:]}")


def _clock_ticks(axes: "Axes") -> None:
    """Ticks at whole minutes and hours, not at multiples of 25 seconds."""
    end = axes.get_xlim()[1]
    gaps = [gap * unit for unit in (1, 60, 3600) for gap in (1, 2, 5, 10, 15, 30)] + [86400 * 2**i for i in range(12)]
    axes.set_xticks(np.arange(0, end, next((gap for gap in gaps if end / gap <= 8), gaps[-1])))


def distinct_names(runs: Sequence[RunHistory]) -> list[str]:
    """Names of the runs' folders; whole paths where two of the names are the same."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _new_axes(axis: Axis) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=X_LABELS[axis], ylabel=Y_LABEL)
    show = clock if axis == "time" else _power if axis == "flops" else quantity
    axes.xaxis.set_major_formatter(lambda x, _: show(x) if x > 0 else "0")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    return figure, axes


def _save(figure: "Figure", path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower())
    write_file(path, picture.getvalue())


def _power(number: float) -> str:
    """1.2e+19 as 1.2e19."""
    return f"{number:.2g}".replace("e+", "e")
