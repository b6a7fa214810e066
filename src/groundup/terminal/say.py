"""What the command line prints: text from outside never commands the terminal, and an error is one line."""

import sys

from groundup.config.printable import printable


def say(text: str = "", *, end: str = "\n") -> None:
    """Print to standard output at once, control characters as their escapes."""
    print(printable(text), end=end, flush=True)


def write(text: str) -> None:
    """Write text of a model or of a document at once, exactly as it is.

    To a terminal, which would obey them, control characters go as their escapes.
    """
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


LONGEST = 2000
"""Characters of an error; a value of a damaged file may have millions."""


def warn(text: str) -> None:
    """Print one line to standard error; a new line in a path is shown as what it is."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    print(f"groundup: {printable(text)}".replace("\n", "\\n"), file=sys.stderr, flush=True)
