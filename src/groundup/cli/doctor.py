"""groundup doctor: what this machine can do, measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from groundup.terminal.parse import parse


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show what this machine can do: device, precision and why, measured speed, what is installed."""

    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Measure and print; takes a few seconds."""
    options = parse(Options, argv, prog="groundup doctor")
    from groundup.runtime.doctor import examine

    facts = examine()
    if options.json:
        import json

        print(json.dumps(facts, ensure_ascii=False))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in facts.items():
        table.add_row(name, str(value))
    Console(soft_wrap=True, markup=False, emoji=False).print(table, highlight=False)
    return 0
