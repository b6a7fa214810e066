"""Draw docs/images/model.svg: the residual stream, and the two sums of a block that flow into it.

python docs/stream.py; a test holds the committed picture.
"""

from pathlib import Path

PICTURE = Path(__file__).parent / "images" / "model.svg"
WIDE, HIGH = 960, 330
STREAM = 70
"""Height at which the stream runs."""
BRANCH = 200
"""Height of what a block computes beside it."""
BOX = (104, 50)


def drawing() -> str:
    """The picture as SVG, in the color of the text around it."""
    parts = [
        f'<rect x="196" y="24" width="624" height="262" rx="10" fill="none" {_line(dashed=True)} opacity=".6"/>',
        _text(508, 308, "one block, n_layer times", size=12),
        f'<path d="M132 {STREAM}H826" stroke="#009485" stroke-width="12" stroke-opacity=".35" fill="none"/>',
        _text(350, STREAM - 24, "x (B, T, C), the residual stream", size=12),
        _box(76, STREAM, "wte + wpe", "(B, T, C)"),
        _box(880, STREAM, "ln_f, head", "(B, T, V)"),
        _text(76, STREAM + 46, "idx (B, T)", size=11, mono=True),
        _text(880, STREAM + 46, "logits", size=11, mono=True),
        *_branch(leaves=222, boxes=(("ln_1", "(B, T, C)"), ("attn", "q, k, v: (B, H, T, D)")), joins=496),
        *_branch(leaves=524, boxes=(("ln_2", "(B, T, C)"), ("mlp", "GELU: (B, T, 4C)")), joins=798),
    ]
    size = f'viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}"'
    style = 'color="#6a737d" font-family="sans-serif" fill="currentColor"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>',
            "<title>The residual stream: each block reads it twice and adds to it twice</title>",
            *parts,
            "</svg>\n",
        ]
    )


def _branch(*, leaves: int, boxes: tuple[tuple[str, str], tuple[str, str]], joins: int) -> list[str]:
    """A copy of the stream goes down, through two boxes, and up to a plus."""
    first, second = leaves + 58, joins - 74
    half = BOX[0] // 2
    return [
        f'<path d="M{leaves} {STREAM}V{BRANCH}H{first - half}" fill="none" {_line()}/>',
        _arrow(first - half, BRANCH, "right"),
        _box(first, BRANCH, *boxes[0]),
        f'<path d="M{first + half} {BRANCH}H{second - half}" fill="none" {_line()}/>',
        _arrow(second - half, BRANCH, "right"),
        _box(second, BRANCH, *boxes[1]),
        f'<path d="M{second + half} {BRANCH}H{joins}V{STREAM + 14}" fill="none" {_line()}/>',
        _arrow(joins, STREAM + 14, "up"),
        f'<circle cx="{joins}" cy="{STREAM}" r="14" fill="#009485"/>',
        f'<path d="M{joins - 7} {STREAM}h14M{joins} {STREAM - 7}v14" stroke="#fff" stroke-width="2.5"/>',
    ]


def _box(x: int, y: int, name: str, shape: str) -> str:
    """A box around a point: a name above the shape of what it makes."""
    wide, high = BOX
    return (
        f'<rect x="{x - wide // 2}" y="{y - high // 2}" width="{wide}" height="{high}" rx="6" fill="#009485"'
        f' fill-opacity=".12" {_line()}/>'
        + _text(x, y - 4, name, size=13, bold=True)
        + _text(x, y + 14, shape if len(shape) < 12 else "(B, T, C)", size=11, mono=True)
        + (_text(x, y + 44, shape, size=11, mono=True) if len(shape) >= 12 else "")
    )


def _text(x: int, y: int, words: str, *, size: int, bold: bool = False, mono: bool = False) -> str:
    more = (' font-weight="bold"' if bold else "") + (' font-family="monospace"' if mono else "")
    return f'<text x="{x}" y="{y}" text-anchor="middle" font-size="{size}"{more}>{words}</text>'


def _line(*, dashed: bool = False) -> str:
    return 'stroke="currentColor"' + (' stroke-dasharray="4 4"' if dashed else "")


def _arrow(x: int, y: int, way: str) -> str:
    d = f"M{x} {y}l-7 -4v8z" if way == "right" else f"M{x} {y}l-4 7h8z"
    return f'<path d="{d}"/>'


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
