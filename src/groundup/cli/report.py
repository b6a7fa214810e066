"""groundup report RUN: draw report.html and loss.png of a run again, from what its folder holds."""

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from groundup.files.layout import REPORT, resolved
from groundup.records.history import read_run
from groundup.records.models_here import missing_model
from groundup.records.report import write_report
from groundup.terminal.parse import parse
from groundup.terminal.say import say


@dataclass(frozen=True, kw_only=True)
class Options:
    """Draw a run's report again: also of one that is going on, or that was stopped."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run's folder."""
    open: bool = False
    """Open it in the browser."""


def main(argv: Sequence[str]) -> int:
    """Write the report and say where it is."""
    options = parse(Options, argv, prog="groundup report", missing={"RUN": lambda: missing_model("report")})
    read_run(options.run)
    from groundup.terminal.working import Working

    with Working("drawing"):
        write_report(options.run)
    address = resolved(options.run / REPORT).as_uri()
    say(address)
    if options.open:
        webbrowser.open(address)
    return 0
