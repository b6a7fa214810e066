"""groundup doctor: what this machine can do, measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from groundup.terminal.parse import parse
from groundup.terminal.say import say
from groundup.terminal.waiting import before_torch

WIDTH = 24
"""Of the column of names."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show what this machine can do: device, precision and why, measured speed, what is installed."""

    json: bool = False
    """Print one JSON object instead of a table."""


def main(argv: Sequence[str]) -> int:
    """Measure, and print each finding as soon as it is known; takes some seconds, on a busy machine not many more."""
    options = parse(Options, argv, prog="groundup doctor")
    from groundup.terminal.working import Working

    before_torch()
    facts: dict[str, str] = {}
    with Working("loading PyTorch") as working:
        from groundup.runtime.doctor import examine

        for name, value in examine(working.doing):
            facts[name] = value
            if not options.json:
                say(f"{name:<{WIDTH}}{value}")
    if options.json:
        print(json.dumps(facts, ensure_ascii=False))
    return 0
