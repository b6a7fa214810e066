"""Draw the rooms of the package and which room imports which: docs/images/rooms.svg, from the imports themselves.

    python docs/rooms.py                                                  the checkout as it is
    python docs/rooms.py --commit 9dc3c92 --to docs/images/rooms-before.svg   as it was at a commit

The floors are those of the contract in pyproject.toml, which import-linter checks. A strong line is an import that no
chain of other imports implies; a faint line is one that such a chain implies as well.
"""

import argparse
import ast
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "groundup"
WIDTH, FLOOR, BOX, HEIGHT, MARGIN = 920, 84, 104, 30, 44
"""Width of the drawing, distance of two floors, width and height of a box, and the edge on the left, in pixels."""

Imports = dict[str, set[str]]
"""For each room, the rooms that it imports."""


def main() -> None:
    """Draw the rooms."""
    parser = argparse.ArgumentParser(description="Draw the rooms of the package and their imports.")
    parser.add_argument("--commit", help="a commit to draw in place of the checkout")
    parser.add_argument("--to", type=Path, default=ROOT / "docs/images/rooms.svg", help="the SVG to write")
    args = parser.parse_args()
    args.to.write_text(committed_drawing(args.commit) if args.commit else drawing(), encoding="utf-8")


def drawing() -> str:
    """The checkout as SVG."""
    package = ROOT / "src" / PACKAGE
    sources = {path.relative_to(package).as_posix(): path.read_text("utf-8") for path in package.rglob("*.py")}
    return draw(imports(sources), floors((ROOT / "pyproject.toml").read_text("utf-8")), "Rooms and their imports")


def committed_drawing(commit: str) -> str:
    """A commit as SVG."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    prefix = f"src/{PACKAGE}/"
    paths = [path for path in git("ls-tree", "-r", "--name-only", commit, prefix).splitlines() if path.endswith(".py")]
    sources = {path.removeprefix(prefix): git("show", f"{commit}:{path}") for path in paths}
    return draw(
        imports(sources), floors(git("show", f"{commit}:pyproject.toml")), f"Rooms and their imports at {commit}"
    )


def imports(sources: Mapping[str, str]) -> Imports:
    """Which room imports which, imports inside functions included."""
    found: Imports = {path.split("/")[0]: set() for path in sources if "/" in path}
    for path, text in sources.items():
        room = path.split("/")[0]
        if room not in found:
            continue  # __init__ and __main__ of the package are in no room
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                # `from groundup import model` names the room after the word import
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            rooms = {name.split(".")[1] for name in names if name.startswith(f"{PACKAGE}.")}
            found[room] |= rooms & set(found) - {room}
    return found


def floors(pyproject: str) -> list[list[str]]:
    """The rooms of each floor, the lowest first, as import-linter holds them."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[name.strip().removeprefix(f"{PACKAGE}.") for name in layer.split("|")] for layer in reversed(layers)]


def arranged(rows: list[list[str]], graph: Imports) -> list[list[str]]:
    """Each floor in an order that keeps lines short: rooms move to the middle of their neighbors, again and again."""
    rows = [sorted(row) for row in rows]
    strong = essential(graph)
    neighbors = {room: strong[room] | {other for other in graph if room in strong[other]} for room in graph}
    for _ in range(8):
        for row in rows:
            x = {room: center(row, i) for row in rows for i, room in enumerate(row)}
            row.sort(key=lambda room: (sum(x[other] for other in neighbors[room]) / (len(neighbors[room]) or 1), room))
    return rows


def essential(graph: Imports) -> Imports:
    """The imports that no chain of other imports implies (the transitive reduction)."""
    reached: Imports = {}

    def reach(room: str) -> set[str]:
        if room not in reached:
            reached[room] = graph[room].union(*map(reach, sorted(graph[room])))
        return reached[room]

    return {room: below.difference(*map(reach, sorted(below))) for room, below in graph.items()}


def center(row: list[str], i: int) -> float:
    """The middle of the i-th box of a floor."""
    return MARGIN + (WIDTH - MARGIN) * (i + 0.5) / len(row)


def draw(graph: Imports, rows: list[list[str]], title: str) -> str:
    """The drawing as SVG: gray lines and dark boxes, which can be read on a light page and on a dark one."""
    rows, strong = arranged(rows, graph), essential(graph)
    height = FLOOR * len(rows)
    place = {
        room: (center(row, i), height - FLOOR * floor - FLOOR / 2)
        for floor, row in enumerate(rows)
        for i, room in enumerate(row)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' color="#6a737d" font-family="sans-serif" font-size="13" fill="currentColor">',
        f"<title>{title}</title>",
    ]
    for room in sorted(graph):
        for other in sorted(graph[room], key=lambda name: (name in strong[room], name)):
            (x1, y1), (x2, y2) = place[room], place[other]
            style = 'stroke-width="1.6"' if other in strong[room] else 'stroke-width="1" opacity=".16"'
            top, bottom = y1 + HEIGHT / 2, y2 - HEIGHT / 2
            bend = (bottom - top) / 2
            lines.append(
                f'<path d="M{x1:.0f} {top:.0f} C{x1:.0f} {top + bend:.0f} {x2:.0f} {bottom - bend:.0f}'
                f' {x2:.0f} {bottom:.0f}" fill="none" stroke="currentColor" {style}/>'
            )
    for floor in range(len(rows)):
        lines.append(f'<text x="6" y="{height - FLOOR * floor - FLOOR / 2 + 5:.0f}" opacity=".8">{floor + 1}</text>')
    for room, (x, y) in sorted(place.items()):
        lines += [
            f'<rect x="{x - BOX / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{BOX}" height="{HEIGHT}" rx="6"'
            ' fill="#00695f"/>',
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#ffffff">{room}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    main()
