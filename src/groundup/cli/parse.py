"""Flags to typed values by tyro, with every mistake answered in one line.

tyro draws a box for each error; a box is pleasant for one mistake at a desk and useless in a log. `parse` keeps
tyro's parser and help, and turns what the box says into a `UsageError`.
"""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from groundup.config.errors import UsageError

T = TypeVar("T")


@contextlib.contextmanager
def _unwrapped() -> Iterator[None]:
    """Tell tyro of a very wide terminal: in a box that never wraps, a line is a whole sentence."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def parse(spec: Callable[..., T], argv: Sequence[str], *, prog: str, default: Any = None) -> T:
    """Read flags into a dataclass, or call a function with them.

    Args:
        spec: A dataclass or an annotated function; its docstrings are the help.
        argv: The words after the command.
        prog: The command, as the user typed it.
        default: An instance whose values stand where no flag is given.

    Raises:
        UsageError: A flag or value is wrong; the message is one line and names the nearest flag.
        SystemExit: With code 0, after `--help` was printed.
    """
    import tyro

    options = {"args": list(argv), "prog": prog}
    if default is not None:
        options["default"] = default
    if {"-h", "--help"} & set(argv):
        return tyro.cli(spec, **options)  # type: ignore[call-overload]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), _unwrapped():
            return tyro.cli(spec, **options)  # type: ignore[call-overload]
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(one_line(errors.getvalue(), prog)) from None


def one_line(box: str, prog: str) -> str:
    """Condense tyro's error box: its first paragraph, then the nearest flag or the way to the help."""
    rows = [row.strip(" │") for row in box.splitlines() if row.startswith("│")]
    rule = next((i for i, row in enumerate(rows) if row and set(row) == {"─"}), len(rows))
    message = " ".join(row for row in rows[:rule] if row).rstrip(".")
    message = re.sub(r"^Error parsing [\w.\-]+: (?=[\w.\-]+ must )", "", message) or box.strip()
    flags = [row.split()[0].rstrip(",") for row in rows[rule:] if row.startswith("--")]
    if message.startswith("Unrecognized") and flags:
        return f"{message[0].lower()}{message[1:]}; did you mean {flags[0]}?"
    return f"{message[0].lower()}{message[1:]} (see {prog} --help)"
