"""What a person sees while a run goes: a live line in a terminal, plain lines in a log file."""

import os
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.segment import Segment, Segments

from groundup.config.printable import printable
from groundup.terminal.output import PatientStream

PLAIN_EVERY = 10.0
"""Seconds between lines where there is no terminal."""


def clock(seconds: float) -> str:
    """12 s, 3:05 or 2:03:00: as short as the number allows."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def quantity(number: float) -> str:
    """1234567 as 1.23M: three digits are all that anyone reads."""
    rounded = float(f"{number:.3g}")  # first, so that 999,700 is 1M
    for unit, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if rounded >= unit:
            return f"{rounded / unit:.3g}{name}"
    return f"{rounded:.3g}"


def say(console: Console, text: str, *, style: str = "") -> None:
    """Print text as it is: what stands in a path or a sample is never markup, emoji or a command to the terminal."""
    # Not a Text, which would turn tabs into spaces.
    console.print(Segments([Segment(f"{printable(text)}\n", console.get_style(style or "none"))]), end="")


def quote(console: Console, text: str, *, title: str) -> None:
    """Print text of the model, set off from ours, below a line that says whose it is."""
    say(console, title)
    for line in text.removesuffix("\n").split("\n"):
        say(console, f"  │ {line}", style="cyan")


NOTEBOOKS = ("JPY_PARENT_PID", "KAGGLE_KERNEL_RUN_TYPE", "COLAB_RELEASE_TAG")
"""What is set where a command runs below a notebook. It gives a terminal and keeps each redrawn line."""


def is_live(console: Console) -> bool:
    """Whether a line that is drawn again and again is seen as one line, and rich draws it."""
    if console.quiet or console.is_dumb_terminal or any(name in os.environ for name in NOTEBOOKS):
        return False
    # FORCE_COLOR asks for colors in a file, too, and rich then takes it for a terminal.
    return console.is_terminal and PatientStream(console.file).isatty()


def speaks() -> bool:
    """Whether this process speaks for its job: of those that torchrun starts, one does."""
    return "WORLD_SIZE" not in os.environ or os.environ.get("RANK", "0") == "0"


class Bar(Progress):
    """What is counted, a bar, and what there is to say; nothing outside a terminal.

    Args:
        counted: The text before the bar, in rich's form.
        console: Where to draw.
    """

    def __init__(self, counted: str, console: Console) -> None:
        super().__init__(
            TextColumn(counted),
            BarColumn(bar_width=20),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not is_live(console),
        )


class Display:
    """Progress of one run.

    Args:
        max_steps: Steps of the whole run.
        console: Where to write.
    """

    def __init__(self, *, max_steps: int, console: Console) -> None:
        self.console = console
        self._max_steps = max_steps
        self._last_plain = time.monotonic()
        self._progress = Bar("step {task.completed:.0f}/{task.total:.0f}", console)
        self._task: TaskID | None = None
        self._text = ""

    def __enter__(self) -> "Display":
        self._progress.start()
        self._task = self._progress.add_task("", total=self._max_steps)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, *, step: int, loss: float, tokens_per_sec: float, mfu: float | None, left: float) -> None:
        """Show the numbers of the last logged step."""
        speed = f"{quantity(tokens_per_sec)} tokens/s" + (f" · MFU {mfu:.0%}" if mfu is not None else "")
        text = f"loss {loss:.3f} · {speed} · {clock(left)} left"
        self._text = text
        if self._task is not None:
            self._progress.update(self._task, completed=step, description=text)
        now = time.monotonic()
        if not is_live(self.console) and (now - self._last_plain >= PLAIN_EVERY or step == self._max_steps):
            self._last_plain = now
            self.say(f"step {step}/{self._max_steps} · {text}")

    def tick(self, step: int) -> None:
        """Move the bar by a step whose numbers are not shown."""
        if self._task is not None:
            self._progress.update(self._task, completed=step, description=self._text)

    def doing(self, what: str, share: float) -> None:
        """Show how far something is that stands between two steps."""
        if self._task is not None:
            self._progress.update(self._task, description=f"{what} {share:.0%}")

    def say(self, text: str) -> None:
        """Print a line above the progress."""
        say(self.console, text)

    def quote(self, text: str, *, title: str) -> None:
        """Print text of the model, as `quote` does."""
        quote(self.console, text, title=title)
