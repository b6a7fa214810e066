"""One writer per run folder, and one at a time for a file that several commands add to.

The file of a lock is removed while the lock is held. A process that opened it before does not get the lock of a
removed file: `filelock` looks, and opens the path again.
"""

import contextlib
import errno
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock, FileLock, Timeout

from groundup.config.errors import UserError
from groundup.files.layout import resolved

if sys.platform != "win32":
    import fcntl


_ONLOOKERS = 50
"""How often a run looks again at a lock that is only looked at: 0.2 s each, far longer than a busy machine stalls."""


def is_held(run_dir: Path) -> bool:
    """Whether a process holds the lock of a run folder. Any number may ask at once: the lock is shared meanwhile."""
    path = _lock_file(run_dir)
    if sys.platform == "win32":  # which shares no locks
        return _is_taken(path)
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            removed = os.fstat(file.fileno()).st_nlink == 0
    except BlockingIOError:
        return True
    except OSError as error:  # no file, or another user's; where a disk has no such locks, filelock has its own
        return error.errno == errno.ENOSYS and _is_taken(path)
    return removed and is_held(run_dir)  # that run has ended, and another one may have begun


def _is_taken(path: Path) -> bool:
    """Whether a lock cannot be taken."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # another user's folder, where we may not lock
        return False
    _remove(lock)
    return False


def _lock_file(run_dir: Path) -> Path:
    """Beside the folder itself, also where `run_dir` is a link: a folder has one lock, whatever it is called."""
    folder = resolved(run_dir)
    return folder.with_name(f".{folder.name}.lock")


@contextlib.contextmanager
def one_at_a_time(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes from changing a file in the same way, for as long as the `with` block takes.

    Args:
        path: The file.
        wait: Wait for another process that is at it.

    Raises:
        UserError: The folder of the file cannot be written to, or another process is at it.
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        _make(lock, path)
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        raise UserError(f"{path} is being written by another process") from None
    except OSError as error:
        raise UserError(f"cannot lock {path}: {error.strerror or error}") from error
    try:
        yield
    finally:
        _remove(lock)


def _make(lock: BaseFileLock, guarded: Path) -> None:
    """Make the file of a lock where there is none.

    Raises:
        UserError: No file can be made there: `filelock` would try again and again, as if somebody had removed it.
    """
    path = Path(lock.lock_file)
    try:
        path.touch()
    except FileNotFoundError:
        raise UserError(f"cannot write {guarded}: no file can be made in {path.parent}; name another place") from None


def _remove(lock: BaseFileLock) -> None:
    """Release a lock, and leave no file of it."""
    with contextlib.suppress(OSError):  # Windows keeps what is open, and removes it itself
        Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


class RunLock:
    """Held while a run writes to its folder; the kernel frees it when the process dies, however it dies.

    Args:
        run_dir: The folder to guard. The lock lies beside it, so that the folder itself may be renamed.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._lock = FileLock(_lock_file(run_dir))
        self._holder = _lock_file(run_dir).with_suffix(".lock.holder")

    def __enter__(self) -> "RunLock":
        """Take the lock.

        Raises:
            UserError: Another process holds it; the message says which.
        """
        try:
            self._acquire()
            self._holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except Timeout:
            raise UserError(f"{self.run_dir} is in use by another run ({self._who()})") from None
        except OSError as error:
            self.__exit__(None, None, None)
            raise UserError(f"cannot lock {self.run_dir}: {error.strerror or error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # which process held it last does not matter once it is free
            self._holder.unlink(missing_ok=True)
        _remove(self._lock)

    def _acquire(self) -> None:
        _make(self._lock, self.run_dir)
        for left in reversed(range(_ONLOOKERS)):
            try:
                self._lock.acquire(timeout=0.2)
                return
            except Timeout:
                if not left or is_held(self.run_dir):
                    raise

    def _who(self) -> str:
        try:
            return self._holder.read_text(encoding="utf-8")
        except OSError:
            return "an unknown process"
