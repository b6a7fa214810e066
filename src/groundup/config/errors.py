"""The errors a user can cause.

Their message is one line: what was wrong, the value, what to do. The command line prints that line and nothing
else; every other exception is a bug of ours and keeps its traceback.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path


class UserError(ValueError):
    """Something outside the program is wrong: a file, a folder, one that is not there, a machine. It exits with 1."""

    exit_code = 1

    @property
    def lines(self) -> tuple[str, ...]:
        """What to print: one line, but where several things are wrong at once."""
        return (str(self),)


class UsageError(UserError):
    """The request itself is wrong: a flag, a value, a combination. The command exits with 2."""

    exit_code = 2


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Within it, an error of the system becomes a UserError: a file cannot be read, and why."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def first_line(error: BaseException) -> str:
    """The first line of an error of somebody else's, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip()
