"""Standard streams that may be missing, odd, or closed by its reader."""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import IO

from groundup.config.errors import UserError


class PatientStream:
    """A text stream that drops what the system no longer takes: a closed pipe, a full disk, a terminal that is gone.

    The first time that happens it is said on stderr. What the stream's encoding cannot express becomes question marks.

    Args:
        stream: Where words go; None (a process without standard output) drops all of them.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop."""
        if self._stream is not None:
            try:
                self._stream.write(text.encode(self.encoding, "replace").decode(self.encoding))
            except (OSError, ValueError) as error:  # ValueError: the stream is closed
                self._give_up(self._stream, error)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop what is held back."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(self._stream, error)

    def isatty(self) -> bool:
        """Whether a terminal reads it."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # closed
            return False

    @property
    def encoding(self) -> str:
        """What characters become bytes by."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def fileno(self) -> int:
        """The file descriptor.

        Raises:
            OSError: There is none.
        """
        if self._stream is None:
            raise OSError("no standard output")
        return self._stream.fileno()

    def _give_up(self, stream: IO[str], error: Exception) -> None:
        self._stream = None
        discard(stream)
        reason = getattr(error, "strerror", None) or str(error)
        try:
            sys.stderr.write(f"groundup: nobody takes what is printed ({reason}); the run goes on with its record\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            discard(sys.stderr)


def discard(stream: IO[str]) -> None:
    """Point a stream that refuses what it holds to nowhere: else Python fails on it once more at exit."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a stream that is closed, or no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def mend_surroundings() -> None:
    """Have streams that take every text, a width, and a place for temporary files: a process may lack each of them.

    Raises:
        UserError: The current folder is gone.
    """
    if sys.stdin is None:
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        with contextlib.suppress(OSError):  # where it leads is not what it was when it was opened
            sys.stdout.reconfigure(errors="replace")  # a name that its encoding cannot express is no reason to fail
    if os.environ.get("COLUMNS") == "0":
        del os.environ["COLUMNS"]  # rich would print nothing at all
    try:
        os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # MKL would end the process
        raise UserError("the folder that this command was started in is gone; go to one that is there (cd)") from None
    if os.name == "posix" and not any(os.access(folder, os.W_OK) for folder in _temporary_folders()):
        with contextlib.suppress(OSError, RuntimeError):  # the latter: there is no home folder
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            cache.mkdir(parents=True, exist_ok=True)
            os.environ["TMPDIR"] = str(cache)  # where a container's disk is read-only; libraries look there, too


def _temporary_folders() -> list[str]:
    """Where Python looks for a place for temporary files."""
    return [*filter(None, map(os.environ.get, ("TMPDIR", "TEMP", "TMP"))), "/tmp", "/var/tmp", "/usr/tmp", "."]
