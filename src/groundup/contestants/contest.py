"""Fair comparisons on a machine whose speed drifts: contestants take turns, and medians and ratios are quoted.

Each contestant lives in a process of its own, started fresh, so that none enjoys or suffers another's settings, and its
peak memory is its own. Only one of them works at a time.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from groundup.config.errors import UserError
from groundup.files.processes import start_process

Contestant = tuple[Callable[[], None], Callable[[], int]]
"""One unit of its work, and the most bytes that it had in use so far."""
Factory = Callable[[Any], Contestant]
"""Makes, from options, a unit of work (done when it returns) and the peak memory in bytes so far."""


@dataclass(frozen=True, slots=True)
class Timing:
    """What a contestant did."""

    seconds: list[float]
    """Per unit of work, one figure a round."""
    peak_memory: int

    @property
    def median(self) -> float:
        """Seconds per unit of work."""
        return statistics.median(self.seconds)


def race(
    contestants: Mapping[str, Factory],
    options: object,
    *,
    rounds: int,
    runs: int,
    warmup: int = 5,
    starts: int = 1,
    together: bool = False,
    failures: dict[str, str] | None = None,
) -> dict[str, Timing]:
    """Let every contestant do `runs` units of work in each round; each round begins with another one.

    Args:
        contestants: By name.
        options: What each is made from.
        rounds: Turns of each process.
        runs: Units of work per turn.
        warmup: Units before the first round.
        starts: Processes of each, one after the other: a process may be slow or fast by chance, as its memory lies.
        together: All get ready at the same time.
        failures: Where it is given, a contestant that fails is told here, by name, instead of ending the race.

    Raises:
        UserError: A contestant could not start.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, float] = {}
    for _ in range(starts):
        field = _Field(options, warmup, failures)
        try:
            for name, factory in contestants.items():
                field.start(name, factory)
                if not together:
                    field.wait(name)
            if together:
                for name in names:
                    field.wait(name)
            for number in range(rounds):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    if (taken := field.wait(name, runs)) is not None:
                        seconds[name].append(taken / runs)
            for name in names:
                if (peak := field.wait(name, 0)) is not None:
                    peaks[name] = max(peak, peaks.get(name, 0.0))
        finally:
            field.end()
    return {name: Timing(seconds[name], int(peak)) for name, peak in peaks.items()}


class _Field:
    """The processes of a race."""

    def __init__(self, options: object, warmup: int, failures: dict[str, str] | None) -> None:
        self._options, self._warmup, self._failures = options, warmup, failures
        self._pipes: dict[str, Connection] = {}
        self._processes: list[SpawnProcess] = []

    def start(self, name: str, factory: Factory) -> None:
        """Start a contestant, which then gets ready and answers."""
        self._pipes[name], theirs = Pipe()
        self._processes.append(start_process(_contestant, theirs, factory, self._options, self._warmup))
        theirs.close()

    def wait(self, name: str, request: int | None = None) -> float | None:
        """Send a contestant a number of units, if one is given, and wait; None where it has failed, now or before."""
        if name not in self._pipes:
            return None
        try:
            if request is not None:
                self._pipes[name].send(request)
            return _receive(self._pipes[name], name)
        except UserError as error:
            if self._failures is None:
                raise
            self._failures[name] = str(error)
            del self._pipes[name]
            return None

    def end(self) -> None:
        """End all processes."""
        for process in self._processes:
            process.terminate()
            process.join()


def median_ratio(ours: Timing, theirs: Timing) -> float:
    """How many times our time they take: the median over the rounds, in each of which both ran."""
    return statistics.median(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))


def _receive(pipe: Connection, name: str) -> float:
    try:
        answer = pipe.recv()
    except (EOFError, ConnectionError):
        raise UserError(f"the contestant {name} died") from None
    if isinstance(answer, str):
        raise UserError(f"the contestant {name} cannot run: {answer}")
    return float(answer)


def _contestant(pipe: Connection, factory: Factory, options: object, warmup: int) -> None:
    """The life of a contestant: get ready, then work whenever a number arrives, until it is 0."""
    try:
        work, peak_memory = factory(options)
        for _ in range(warmup):
            work()
    except Exception as error:
        pipe.send(" ".join(f"{type(error).__name__}: {error}".split()))  # one line, whatever the library says
        return
    pipe.send(0.0)
    while runs := pipe.recv():
        start = time.perf_counter()
        try:
            for _ in range(runs):
                work()
        except Exception as error:
            pipe.send(" ".join(f"{type(error).__name__}: {error}".split()))
            return
        pipe.send(time.perf_counter() - start)
    pipe.send(float(peak_memory()))
