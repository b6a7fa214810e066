"""Signs of life while something long stands between two lines of output.

In a terminal: a spinner, what is being done, its seconds, and its limit where there is one. Elsewhere: a line after
`PATIENCE` seconds and then every `REMIND`, so that a log of a short run holds nothing more than before.
"""

import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from groundup.terminal.display import clock, is_live, say, speaks

PATIENCE = 5.0
"""Seconds of silence that nobody takes for the end."""
REMIND = 30.0
"""Seconds between the lines after that."""


class _Seconds(ProgressColumn):
    """How long it has taken, read when it is drawn."""

    def __init__(self, working: "Working") -> None:
        super().__init__()
        self._working = working

    def render(self, task: Task) -> Text:
        return Text(self._working.seconds())


class Working:
    """Shows what is being done, from `with` to its end.

    Args:
        what: What is being done first: "loading PyTorch".
        console: Where to show it; None is standard error, which leaves standard output to results. There, one process
            of a job speaks.
    """

    def __init__(self, what: str, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, soft_wrap=True, quiet=not speaks())
        self._spinner = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            _Seconds(self),
            console=self.console,
            transient=True,
            # rich would send what is printed to this console, away from the file or pipe that it is meant for
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
            disable=not is_live(self.console),
            refresh_per_second=5,
        )
        self._task = self._spinner.add_task("", total=None)
        self._over = threading.Event()
        self._plain = threading.Thread(target=self._remind, daemon=True)
        self.doing(what)

    def __enter__(self) -> "Working":
        if is_live(self.console):
            self._spinner.start()
        elif not self.console.quiet:
            self._plain.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Show no more, before `with` ends: there is something to see now."""
        self._over.set()
        self._spinner.stop()

    def doing(self, what: str, *, limit: float = 0.0) -> None:
        """Go on to the next thing, whose seconds begin at 0.

        Args:
            what: What is being done from here on.
            limit: Seconds after which it is given up; 0 is none.
        """
        self._what, self._limit, self._begun = what, limit, time.monotonic()
        self._next = self._begun + PATIENCE
        self._spinner.update(self._task, description=what)

    def share(self, done: float) -> None:
        """Say how much of it is done, from 0 to 1."""
        self._spinner.update(self._task, description=f"{self._what} {done:.0%}")

    def say(self, text: str) -> None:
        """Print a line above."""
        say(self.console, text)

    def seconds(self) -> str:
        """How long the present thing has taken, and how long it may take."""
        limit = f" of at most {clock(self._limit)}" if self._limit else ""
        return f"{clock(time.monotonic() - self._begun)}{limit}"

    def _remind(self) -> None:
        while not self._over.wait(max(0.0, self._next - time.monotonic())):
            if time.monotonic() >= self._next:  # else another thing has begun meanwhile
                self._next = time.monotonic() + REMIND
                say(self.console, f"{self._what}: {self.seconds()}")
