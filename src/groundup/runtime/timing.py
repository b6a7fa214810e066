"""Where the time of a step goes, measured without waiting for the device.

On a CPU the host's clock is enough. On a GPU the host only hands out work, so its clock says nothing about the
device, and asking the device to finish before each reading would slow down what is measured. There, CUDA events are
put into the stream between the parts; the device stamps them as it passes, and the stamps are read one step later,
when the step's own check for NaN has waited for the device anyway. Two things follow. The numbers of a GPU run are
one step late. And "data" stays the host's time, also there: with several micro-steps it passes while the device
computes. If the parts add up to more than the step, loading overlaps with compute; otherwise the device waits for
data.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import torch

Way = TypeVar("Way", bound=str)

DATA, FORWARD_BACKWARD, OPTIMIZER = "data", "forward_backward", "optimizer"
"""Fetching a batch and handing it to the device; the micro-steps' computing; clipping, the check and the update."""


class StepClock:
    """Sums the seconds of each part of a step. Call `start`, then `lap` with the name of the part that has ended.

    Args:
        device: That computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._events = device.type == "cuda"
        self._host = 0.0
        self._before: torch.cuda.Event | None = None
        self._pending: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()
        self._seconds: dict[str, float] = {}

    def start(self) -> None:
        """A step begins."""
        self._host = time.perf_counter()

    def lap(self, part: str) -> None:
        """The named part has ended, and the next begins."""
        now = time.perf_counter()
        event = self._stamp()
        if part == DATA or event is None or self._before is None:
            self._add(part, now - self._host)
        else:
            self._pending.append((part, self._before, event))
        self._host, self._before = now, event

    def take(self) -> dict[str, float]:
        """Seconds by part since the last call, as far as the device has got; what it has not done comes later."""
        while self._pending and self._pending[0][2].query():  # type: ignore[no-untyped-call]
            part, before, after = self._pending.popleft()
            self._add(part, before.elapsed_time(after) / 1e3)
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _add(self, part: str, seconds: float) -> None:
        self._seconds[part] = self._seconds.get(part, 0.0) + seconds

    def _stamp(self) -> torch.cuda.Event | None:
        if not self._events:
            return None
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def seconds(call: Callable[[], object], device: torch.device | None = None) -> float:
    """Wall time of a call, to the end of what it has given a device to do."""
    start = time.perf_counter()
    call()
    if device is not None:
        synchronize(device)
    return time.perf_counter() - start


def fastest(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of three calls after one to warm up."""
    return min([seconds(call, device) for _ in range(4)][1:])


def turns(ways: dict[Way, Callable[[], object]]) -> dict[Way, float]:
    """The least seconds of each, in turns: what else the machine does slows all down."""
    least = dict.fromkeys(ways, math.inf)
    for _ in range(5):
        for name, way in ways.items():
            least[name] = min(least[name], seconds(way))
    return least


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
