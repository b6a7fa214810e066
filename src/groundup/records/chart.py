"""A line chart as SVG inside a page: it fits any width, takes the page's colors, and answers to the pointer.

The drawing is stretched over its box, so lines keep their width by `non-scaling-stroke`, and everything with letters
stands beside the drawing as HTML, in the page's own size: on a phone, letters of a scaled picture are 4 pixels high.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

WIDE, HIGH = 1000, 400
"""Units of the drawing; any would do, as it is stretched."""
MOST_POINTS = 500
"""More than a screen can show would only make the file larger."""


@dataclass(frozen=True, slots=True)
class Line:
    """One curve.

    Args:
        name: Its class in the style sheet.
        x: Places, ascending.
        y: Values, finite.
        dots: Mark every point.
        named: Answer to the pointer.
        said: What it is called above the chart and where the pointer is; unless given, its name.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dots: bool = False
    named: bool = True
    said: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """What has been drawn.

    Args:
        markup: HTML of the figure.
        lines: For the script: name, and points as (share of the width, share of the height, x, y).
        end: The largest x, where the right edge is.
    """

    markup: str
    lines: list[dict[str, object]]
    end: float


def draw(lines: Sequence[Line], *, baseline: tuple[str, float] | None, x_label: str, y_label: str,
         show: Callable[[float], str]) -> Chart | None:  # fmt: skip
    """Draw lines over a common x axis that begins at 0.

    Args:
        lines: What to draw; those without points are left out.
        baseline: A level to compare with, and what it is.
        x_label: What x counts.
        y_label: What y is.
        show: An x in the words of its axis.

    Returns:
        The chart; None where there is nothing to draw.
    """
    lines = [_thin(line) for line in lines if len(line.x)]
    values = [y for line in lines for y in line.y] + ([baseline[1]] if baseline else [])
    if not lines or not any(x > 0 for line in lines for x in line.x):
        return None
    end = max(x for line in lines for x in line.x)
    levels = _ticks(min(values), max(values))
    low, high = levels[0], levels[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return x / end, (high - y) / (high - low)

    drawn: list[str] = []
    script: list[dict[str, object]] = []
    for level in levels:
        drawn.append(f"<path class=grid d='M0 {HIGH * place(0, level)[1]:.1f}H{WIDE}'/>")
    if baseline:
        drawn.append(f"<path class=baseline d='M0 {HIGH * place(0, baseline[1])[1]:.1f}H{WIDE}'/>")
    for line in lines:
        points = [(*place(x, y), x, y) for x, y in zip(line.x, line.y, strict=True)]
        d = "L".join(f"{WIDE * a:.1f} {HIGH * b:.1f}" for a, b, _, _ in points)
        drawn.append(f"<path class='line {line.name}' d='M{d}'/>")
        if line.dots:
            spots = "".join(f"M{WIDE * a:.1f} {HIGH * b:.1f}h0" for a, b, _, _ in points)
            drawn.append(f"<path class='dots {line.name}' d='{spots}'/>")
        if line.named:
            places = [[round(a, 5), round(b, 5), x, y] for a, b, x, y in points]
            script.append({"name": line.said or line.name, "points": places})
    digits = max(0, math.ceil(-math.log10(levels[1] - levels[0]) - 1e-9))
    letters = "".join(
        f"<span class=y style='top:{100 * place(0, level)[1]:.1f}%'>{level:.{digits}f}</span>" for level in levels
    )
    ticks = [x for x in _ticks(0, end) if x <= end]
    letters += "".join(f"<span class=x style='left:{100 * x / end:.1f}%'>{html.escape(show(x))}</span>" for x in ticks)
    named = [(line.name, html.escape(line.said or line.name)) for line in lines if line.named]
    keys = "".join(f"<span class='key {name}'>{said}</span>" for name, said in named)
    if baseline:
        keys += f"<span class='key baseline'>{html.escape(baseline[0])}</span>"
    markup = (
        f"<figure class=chart><figcaption>{keys}</figcaption><div class=plot>"
        f"<svg viewBox='0 0 {WIDE} {HIGH}' preserveAspectRatio=none role=img aria-label='{html.escape(y_label)} against"
        f" {html.escape(x_label)}'>{''.join(drawn)}</svg>{letters}<div class=here hidden></div>"
        f"<output class=says hidden></output></div><p class=axis>{html.escape(x_label)} →</p></figure>"
    )
    return Chart(markup, script, end)


def _thin(line: Line) -> Line:
    """At most MOST_POINTS of a line, the last one among them."""
    n = len(line.x)
    if n <= MOST_POINTS:
        return line
    keep = [round(i * (n - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)]
    return replace(line, x=[line.x[i] for i in keep], y=[line.y[i] for i in keep])


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose a range."""
    from matplotlib.ticker import MaxNLocator

    if high <= low:
        low, high = low - 0.5, high + 0.5
    return [float(value) for value in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
