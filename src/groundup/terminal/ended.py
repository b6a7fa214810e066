"""A command that Ctrl-C, SIGTERM or a closing terminal ends, ends with one line."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

_UNTOUCHED = (signal.SIG_DFL, signal.default_int_handler)
"""What signals do by default here; one that the process ignores (nohup) stays ignored."""
ENDS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name))
"""Signals that ask a process to end, SIGUSR1 as SLURM's usual warning; Windows has neither it nor SIGHUP."""
_IMPORTING = "<frozen importlib._bootstrap>"
_AGAIN = 0.05
"""Seconds after which an exception that Python has dropped comes again."""
_SHOW_CURSOR = "\x1b[?25h"
"""A spinner hides it."""


class Ended(SystemExit):
    """SIGTERM, SIGHUP or SIGUSR1 came: what Ctrl-C raises as KeyboardInterrupt.

    Args:
        signum: The signal.
    """

    code: int

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)  # the shell's convention
        self.signum = signum

    def __str__(self) -> str:
        """The message."""
        return f"ended by {signal.Signals(self.signum).name}"


def killed_by(exit_code: int) -> str:
    """What ended a process whose exit code is below 0: its signal, and what is mostly behind it."""
    name = signal.Signals(-exit_code).name
    return f"killed by {name} (out of memory?)" if name == "SIGKILL" else f"killed by {name}"


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Until the end of `with`, all but Ctrl-C raise `Ended`, and blocks on the way out close what they opened.

    In the middle of an import these and Ctrl-C end the process at once: libraries drop an exception there, or go on
    with half a module, and nothing is open yet that needs closing. Python itself drops one in `__del__` and in what it
    calls when an object is gone, as it often is while torch.compile works: there, the signal comes again.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may decide about signals
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in ENDS}
    ours = {signum: handler for signum, handler in before.items() if handler in _UNTOUCHED}
    for signum in ours:
        signal.signal(signum, _end)
    usual = sys.unraisablehook

    def dropped(what: "sys.UnraisableHookArgs") -> None:
        if isinstance(what.exc_value, KeyboardInterrupt | Ended):
            signum = what.exc_value.signum if isinstance(what.exc_value, Ended) else signal.SIGINT
            threading.Timer(_AGAIN, _send, [signum]).start()
        else:
            usual(what)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = usual
        for signum, handler in ours.items():
            signal.signal(signum, handler)


def _send(signum: int) -> None:
    """Send a signal to the main thread; Windows knows no threads in this."""
    if hasattr(signal, "pthread_kill") and (thread := threading.main_thread().ident) is not None:
        signal.pthread_kill(thread, signum)
    else:
        signal.raise_signal(signum)


def _end(signum: int, frame: FrameType | None) -> None:
    error = KeyboardInterrupt() if signum == signal.SIGINT else Ended(signum)
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            cursor = _SHOW_CURSOR if os.isatty(2) else ""
            with contextlib.suppress(OSError):  # not by print: its lock may be held by what was interrupted
                os.write(2, f"{cursor}groundup: {str(error) or 'interrupted'}\n".encode())
            os._exit(128 + signum)
        frame = frame.f_back
    raise error
