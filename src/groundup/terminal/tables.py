"""Tables on a terminal and in a pipe."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from groundup.config.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

GAP = 3
"""Spaces between columns."""


def new_table() -> "Table":
    """A table with a rule below its head, and nothing else drawn."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False)


def facts(rows: Iterable[tuple[str, str]]) -> "Table":
    """A table of names and values without a head; control characters, as paths may hold them, as their escapes."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")  # a path that is cut short cannot be copied
    for name, value in rows:
        table.add_row(name, printable(value))
    return table


def print_table(table: "RenderableType") -> None:
    """Print a table without blanks at the ends of lines; in a pipe nothing is wrapped. Names are no markup."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 10_000
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    with console.capture() as written:
        console.print(table)
    sys.stdout.write("\n".join(line.rstrip() for line in written.get().split("\n")))


def columns_that_fit(columns: dict[str, list[str]], width: int) -> dict[str, list[str]]:
    """Leave out columns until the others fit without a wrapped line.

    Args:
        columns: Cells by title, the most important column first: the last one is left out first.
        width: Of the terminal, in characters.
    """
    kept = dict(columns)
    while len(kept) > 1 and sum(max(map(len, [title, *cells])) + GAP for title, cells in kept.items()) > width:
        kept.popitem()
    return kept
