"""The look of the pictures in the notebooks."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from groundup.records.plot import COLORS

__all__ = ["COLORS", "curve_axes", "heat_map", "visible"]


def curve_axes(x: str, y: str, *, size: tuple[float, float] = (7, 4)) -> tuple[Figure, Axes]:
    """An empty picture for curves.

    Args:
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        size: Width and height in inches.
    """
    figure, axes = plt.subplots(figsize=size, dpi=100, layout="constrained")
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.25)
    return figure, axes


def heat_map(
    axes: Axes,
    values: Any,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    *,
    written: bool = False,
    **options: Any,
) -> Any:
    """Numbers as a grid of colored squares, the first row on top.

    Args:
        axes: Where to draw.
        values: A matrix: tensor, array or nested list.
        rows: Labels of the rows.
        columns: Labels of the columns, written above.
        written: Write the numbers into the squares.
        options: Of matplotlib's `imshow`.

    Returns:
        The image, for a color bar.
    """
    matrix = torch.as_tensor(values).detach().cpu().to(torch.float64).numpy()
    image = axes.imshow(matrix, **{"cmap": "Blues", "interpolation": "nearest", **options})
    axes.tick_params(length=0, top=False, bottom=False, left=False, labeltop=True, labelbottom=False)
    axes.set_yticks(range(len(rows)), rows, family="monospace")
    axes.set_xticks(range(len(columns)), columns, family="monospace")
    axes.spines[:].set_visible(False)
    if written:
        low, high = image.get_clim()
        for (i, j), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                dark = (value - low) / ((high - low) or 1) > 0.6
                axes.text(j, i, f"{value:.2g}", ha="center", va="center", color="white" if dark else "black", size=8)
    return image


def visible(token: str) -> str:
    """A token as it can be read on an axis: spaces as `␣`, ends of lines as `↵`."""
    return token.replace(" ", "␣").replace("\n", "↵")
