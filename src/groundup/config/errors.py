"""The errors a user can cause.

Their message is one line: what was wrong, the value, what to do. The command line prints that line and nothing
else; every other exception is a bug of ours and keeps its traceback.
"""


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
