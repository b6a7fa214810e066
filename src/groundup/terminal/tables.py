"""Tables on a terminal and in a pipe."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

GAP = 3
"""Spaces between columns."""


def new_table() -> "Table":
    """A table with a rule below its head, and nothing else drawn."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, pad_edge=False)


def show(table: "Table") -> None:
    """Print a table; in a pipe nothing is wrapped, and folder names are never taken for markup."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def columns_that_fit(columns: dict[str, list[str]], width: int) -> dict[str, list[str]]:
    """Leave out columns until the others fit without a wrapped line.

    Args:
        columns: Cells by title, the dearest column first: the last one goes first.
        width: Of the terminal, in characters.
    """
    kept = dict(columns)
    while len(kept) > 1 and sum(max(map(len, [title, *cells])) + GAP for title, cells in kept.items()) > width:
        kept.popitem()
    return kept
