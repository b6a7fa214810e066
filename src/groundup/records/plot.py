"""Loss curves as PNG: of one run for its report, of several side by side. Drawn without a display."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.config.errors import UserError
from groundup.files.atomic import write_file
from groundup.records.explain import smoothed
from groundup.records.history import Axis, RunHistory, series
from groundup.terminal.display import clock, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#8c6d31")
"""Okabe and Ito's (2008), which color-blind people can tell apart; their yellow, too pale for a line, made a brown."""
DASHES = ("-", "--", ":", "-.")
"""A ninth run has the first's color, dashed."""

X_LABELS: dict[Axis, str] = {"tokens": "tokens learned from", "time": "training time", "flops": "training FLOPs"}
Y_LABEL = "loss (nats per token)"


def plot_loss(rows: list[dict[str, Any]], path: Path, *, baseline: float | None, title: str) -> None:
    """Training and validation loss against tokens, with the bigram's loss as a line to beat."""
    figure, axes = _new_axes("tokens")
    rows = [row for row in rows if row["step"]]  # nothing was learned along a line from step 0
    train, val = series(rows, "tokens", "train/loss"), series(rows, "tokens", "val/loss")
    if train[0]:
        axes.plot(*train, color="#8fb8de", linewidth=1, alpha=0.4)
        axes.plot(train[0], smoothed(train[1]), color="#8fb8de", linewidth=1.5, label="training, smoothed")
    if val[0]:
        axes.plot(*val, color="#0b4f8a", linewidth=2, marker="o", markersize=4, label=f"validation, {val[1][-1]:.3f}")
    if baseline is not None:
        axes.axhline(baseline, color="#b35900", linestyle="--", linewidth=1, label=f"bigram, {baseline:.3f}")
    axes.set_title(title, parse_math=False)  # a folder's name may hold dollars
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    _save(figure, path)


def plot_runs(runs: Sequence[RunHistory], path: Path, *, axis: Axis) -> None:
    """Loss of several runs: validation as a thick line, training as a thin one of the same color.

    Args:
        runs: What to draw, at least one.
        path: The PNG.
        axis: Against what.

    Raises:
        UserError: None of them has a loss to draw, or the file cannot be written.
    """
    figure, axes = _new_axes(axis)
    handles, labels = [], []
    for i, (run, label) in enumerate(zip(runs, distinct_names(runs), strict=True)):
        color, dashes = COLORS[i % len(COLORS)], DASHES[i // len(COLORS) % len(DASHES)]
        train, val = run.series("train/loss", axis), run.series("val/loss", axis)
        if train[0]:
            (line,) = axes.plot(*train, color=color, linestyle=dashes, linewidth=0.8, alpha=0.45)
        if val[0]:
            (line,) = axes.plot(*val, color=color, linestyle=dashes, linewidth=2, marker="o", markersize=3.5)
        if train[0] or val[0]:
            best = run.best.get("val/loss")
            handles.append(line)
            labels.append(label if best is None else f"{label}: {best:.4f}")
    if not handles:
        raise UserError(f"nothing to draw: {', '.join(str(run.path) for run in runs)} logged no loss")
    if axis == "time":
        _clock_ticks(axes)
    _legend(figure, axes, handles, labels)
    axes.set_title("thick: validation, thin: training", fontsize="medium", color="#59636e")
    _save(figure, path)


def _legend(figure: "Figure", axes: "Axes", handles: list[Any], labels: list[str]) -> None:
    """Inside the picture when it is small, else beside it."""
    beside = len(labels) > 5 or max(map(len, labels)) > 32
    options: dict[str, Any] = {"frameon": False, "title": "best validation loss", "alignment": "left"}
    if beside:
        figure.set_size_inches(11, max(4.5, 1 + 0.22 * len(labels)))
        legend = figure.legend(handles, ["x"] * len(handles), loc="outside right upper", **options)
    else:
        legend = axes.legend(handles, ["x"] * len(handles), **options)
    for text, label in zip(legend.get_texts(), labels, strict=True):
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
    show = clock if axis == "time" else quantity if axis == "tokens" else _power
    axes.xaxis.set_major_formatter(lambda x, _: show(x) if x > 0 else "0")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    return figure, axes


def _save(figure: "Figure", path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_file(path, picture.getvalue())


def _power(number: float) -> str:
    """1.2e+19 as 1.2e19."""
    return f"{number:.2g}".replace("e+", "e")
