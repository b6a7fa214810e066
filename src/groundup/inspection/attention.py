"""Where a model looks: its attention patterns, from the real weights, and their picture."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor

from groundup.config.errors import UsageError
from groundup.inspection.plots import heat_map, visible
from groundup.inspection.trace import trace
from groundup.model.build import Transformer

MAX_LABELS = 32
"""Tokens up to which a picture writes them on its axes; four times as many where there are few pictures."""
FEW_PICTURES, MANY_PICTURES = 4, 36
"""Of many, each is half as wide: GPT-2's 144 heads fit a screen."""

BAR_INCHES = 2.2
"""Height of the bar that says what dark means."""


def attention_patterns(model: Transformer, idx: Int[Tensor, " T"]) -> Float[Tensor, "L H T T"]:
    """How much every position takes from every position before it, in every head of every layer.

    Args:
        model: The model.
        idx: One sequence of token ids.

    Returns:
        Weights: entry (l, h, i, j) is what position i takes from position j. Rows sum to 1; the future is 0.

    Raises:
        UserError: More positions than block_size.
    """
    return trace(model, idx).attention


def draw_attention(
    patterns: Float[Tensor, "L H T T"],
    tokens: Sequence[str] = (),
    *,
    layers: Sequence[int] = (),
    heads: Sequence[int] = (),
) -> Figure:
    """A grid of pictures, a row of them for a layer and a column for a head; the bar beside them says what dark means.

    Within a picture the row is the position that looks, the column the one it looks at. For a slide, draw a head or two
    and save the figure as .svg: a picture grows with its text.

    Args:
        patterns: What `attention_patterns` gives.
        tokens: The text of every position, written on the axes where there is room.
        layers: Those to draw; none is all.
        heads: Those to draw of each layer; none is all.

    Raises:
        UsageError: There are not as many tokens as positions.
    """
    layers, heads = layers or range(patterns.shape[0]), heads or range(patterns.shape[1])
    n_layer, n_head, T = len(layers), len(heads), patterns.shape[2]
    if tokens and len(tokens) != T:
        raise UsageError(f"the patterns are of {T} positions, {len(tokens)} tokens were given")
    most = MAX_LABELS if n_layer * n_head > FEW_PICTURES else 4 * MAX_LABELS
    named = bool(tokens) and most >= T
    side = max(1.1 if n_layer * n_head > MANY_PICTURES else 2.2, 0.14 * T if named else 0)
    figure = Figure(figsize=(side * n_head + 0.7, (side + 0.25) * n_layer), dpi=100, layout="constrained")
    labels = [visible(token) for token in tokens] if named else []
    longest = max(map(len, labels), default=0)
    grid = list(figure.subplots(n_layer, n_head, squeeze=False).flat)
    for i, axes in enumerate(grid):
        layer, head = layers[i // n_head], heads[i % n_head]
        image = heat_map(axes, patterns[layer, head].cpu(), labels, labels, vmin=0, vmax=1)
        axes.tick_params(labelsize=7, labelrotation=0)
        if longest > 1:
            axes.tick_params(axis="x", labelrotation=90)
        axes.set_title(f"layer {layer}, head {head}", size=9 if n_layer * n_head <= MANY_PICTURES else 7)
    shrink = min(1.0, BAR_INCHES / figure.get_figheight())
    bar = figure.colorbar(image, ax=grid, ticks=(0, 0.5, 1), shrink=shrink, anchor=(0, 1), aspect=20, pad=0.01)
    bar.set_label("share of a row's attention", size=8)
    bar.ax.tick_params(labelsize=7, length=0)
    bar.outline.set_visible(False)
    return figure
