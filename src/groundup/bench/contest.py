"""Fair comparisons on a machine whose speed drifts: contestants take turns, and medians and ratios are quoted.

Each contestant lives in a process of its own, started fresh, so that none enjoys or suffers another's settings, and its
peak memory is its own. Only one of them works at a time.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from groundup.config.errors import UserError

Factory = Callable[[Any], tuple[Callable[[], None], Callable[[], int]]]
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
    contestants: Mapping[str, Factory], options: object, *, rounds: int, runs: int, warmup: int = 5
) -> dict[str, Timing]:
    """Let every contestant do `runs` units of work in each round; each round begins with another one.

    Raises:
        UserError: A contestant could not start.
    """
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    try:
        for name, factory in contestants.items():
            pipes[name], theirs = context.Pipe()
            process = context.Process(target=_contestant, args=(theirs, factory, options, warmup), daemon=True)
            process.start()
            processes.append(process)
            theirs.close()
            _receive(pipes[name], name)
        names = list(contestants)
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                pipes[name].send(runs)
                seconds[name].append(float(_receive(pipes[name], name)) / runs)
        peaks = {}
        for name in names:
            pipes[name].send(0)
            peaks[name] = int(_receive(pipes[name], name))
        return {name: Timing(seconds[name], peaks[name]) for name in names}
    finally:
        for process in processes:
            process.terminate()
            process.join()


def median_ratio(ours: Timing, theirs: Timing) -> float:
    """How many times our time they take: the median over the rounds, in each of which both ran."""
    return statistics.median(b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True))


def _receive(pipe: Connection, name: str) -> float:
    try:
        answer = pipe.recv()
    except EOFError:
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
        for _ in range(runs):
            work()
        pipe.send(time.perf_counter() - start)
    pipe.send(float(peak_memory()))
