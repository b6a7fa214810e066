"""Turn Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 into a request to stop after the current step."""

import contextlib
import os
import signal
import time
from types import FrameType, TracebackType

from groundup.distributed.ranks import World
from groundup.terminal.ended import ENDS

AGAIN = 5.0
"""Seconds within which another signal than Ctrl-C, after one of these, is the same request."""


TIME_UP = 1 << 16
"""In place of a signal's number."""


class StopRequest:
    """While entered, the first SIGINT, SIGTERM, SIGHUP or SIGUSR1 is a request; a second one has its usual effect.

    A run that stops between steps saves a checkpoint it can continue from; a scheduler that preempts a job sends
    SIGTERM and gives it seconds to do just that. It may send it to a process and to the torchrun above, which passes it
    on; a terminal that closes sends SIGHUP, and so does its shell. So any of these, within `AGAIN` seconds of
    another, is the same request. A signal that the process ignores (nohup, disown) stays ignored.

    Args:
        answer: What is said on stderr at once when the first one comes: a step may still take a minute.
    """

    def __init__(self, answer: str = "") -> None:
        self._answer = answer
        self.heard = 0
        """The signal that came to this process."""
        self.signum: int | None = None
        """The signal that all ranks know of."""
        self._since = 0.0
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether all ranks know that the run is to stop."""
        return self.signum is not None

    def time_is_up(self) -> None:
        """Ask as a signal does, but for an end that was planned."""
        self.heard = self.heard or TIME_UP

    @property
    def exit_code(self) -> int:
        """128 + signal, the shell's convention: 130 for Ctrl-C, 143 for SIGTERM, and so on; 0 when time is up."""
        return 0 if self.signum == TIME_UP else 128 + (self.signum or 0)

    def agree(self, world: World) -> None:
        """Tell the other ranks and hear from them; all do this at the same place of a step."""
        if heard := world.max(self.heard):
            self.signum = heard

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self.heard:
            self.heard, self._since = signum, time.monotonic()
            if self._answer:
                with contextlib.suppress(OSError):  # not by print: its lock may be held by what was interrupted
                    os.write(2, f"\n{self._answer}\n".encode())
            return
        if signal.SIGINT not in (signum, self.heard) and time.monotonic() - self._since < AGAIN:
            return
        self._restore()
        signal.raise_signal(signum)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def __enter__(self) -> "StopRequest":
        for number in ENDS:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
