"""What a person sees while data is prepared: a bar in a terminal, plain lines in a log file."""

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console

from groundup.terminal.display import PLAIN_EVERY, Bar, clock, is_live, quantity

if TYPE_CHECKING:
    from groundup.prepare.executors import Call, Executor
    from groundup.prepare.report import Progress

FIRST = 1.0
"""Seconds of reading after which a line is printed."""
REDRAW = 0.1
"""Seconds between two counts of documents in a terminal."""


class PrepareProgress:
    """Progress of one preparation, with the rates of this call.

    Args:
        console: Where to write.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self.tokens = self._bytes = 0
        self._seconds = 0.0
        self._phase = ""
        self._begun = self._last_plain = time.monotonic()
        self._next = self._begun + FIRST
        """When to tell of reading: documents are many, and drawing takes longer than reading one."""
        self._before = 0
        """Parts or shards that earlier calls had done."""
        self._bar = Bar("{task.fields[doing]}", console)
        self._task = self._bar.add_task("", total=None, visible=False, doing="")

    def __enter__(self) -> "PrepareProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def timed(self, executor: "Executor") -> "Executor":
        """The same executor, with the clock set when work begins: downloads and plans are not tokenizing."""

        def run(function: Callable[..., Any], calls: "Sequence[Call]") -> Iterator[Any]:
            self._begun = time.monotonic()
            yield from executor(function, calls)

        return run

    def update(self, work: "Progress") -> None:
        """Show how far the work is."""
        now = time.monotonic()
        if not work.total:
            self._before_work(work.doing, now)
            return
        self._bar.start()  # not before: downloads show bars of their own
        if work.phase != self._phase:
            self._phase, self._before = work.phase, work.done - 1
        seconds = max(now - self._begun, 1e-9)
        if work.phase == "tokenize":
            self.tokens, self._bytes, self._seconds = work.tokens, work.n_bytes, seconds
        left = seconds / max(1, work.done - self._before) * (work.total - work.done)
        speed = self.rate() if work.phase == "tokenize" else f"{quantity(work.tokens / seconds)} tokens/s"
        text = f"{speed} · {clock(left)} left"
        self._bar.update(
            self._task, completed=work.done, total=work.total, description=text, doing=work.doing, visible=True
        )
        if not is_live(self._console) and (now - self._last_plain >= PLAIN_EVERY or work.done == work.total):
            self._last_plain = now
            self._console.print(f"{work.doing} · {text}", markup=False, highlight=False)

    def _before_work(self, doing: str, now: float) -> None:
        """Show, now and then, how many files or documents were read; how many there are is not known yet."""
        if now < self._next:
            return
        if is_live(self._console):
            self._next = now + REDRAW
            self._bar.start()
            self._bar.update(self._task, doing=doing, visible=True)
        else:
            self._next = now + PLAIN_EVERY
            self._console.print(doing, markup=False, highlight=False)

    def rate(self) -> str:
        """Speed of tokenizing so far."""
        seconds = max(self._seconds, 1e-9)
        return f"{quantity(self.tokens / seconds)} tokens/s · {self._bytes / seconds / 1e6:,.1f} MB/s of text"
