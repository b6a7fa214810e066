"""As many threads of PyTorch as other programs leave cores, in a process that stays while they come and go."""

import os
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from groundup.terminal.waiting import THREADS, USUAL_THREADS, Look

P = ParamSpec("P")
T = TypeVar("T")
SECONDS = 0.5
"""Between two looks."""
AT_WORK = 0.3
"""Cores that we used since the last look. With less we had nothing to do, and what others did meanwhile is over."""


def take_usual_threads(say: Callable[[str], None]) -> None:
    """As many threads as without other programs, where these leave no core free: for work whose threads wait seldom.

    They have a share of each core then, where a single thread has a share of one.

    Args:
        say: Told in one line if there are more.
    """
    usual = int(os.environ.get(USUAL_THREADS, "0"))
    if usual > torch.get_num_threads():
        torch.set_num_threads(usual)
        say(f"threads of this model's training seldom wait for each other: computing with {usual} after all")


class FollowCores:
    """Sets the number of threads of the thread that calls it.

    Of threads that share out a product, each waits for the last. Where one has no core all wait, and fewer are faster.
    Where the cores are free there are as many as when this was made; where OMP_NUM_THREADS says how many, always.
    """

    def __init__(self) -> None:
        self.most, self._last = torch.get_num_threads(), Look.now()
        self._is_said = THREADS in os.environ

    def __call__(self) -> None:
        """Look, at most every SECONDS; to be called between two pieces of work."""
        if self._is_said or time.monotonic() - self._last.when < SECONDS:
            return
        last, now = self._last, Look.now()
        self._last = now
        if now.own_cores_since(last) < AT_WORK:
            return
        n = min(self.most, max(1, round((os.cpu_count() or 1) - now.others_since(last))))
        if n != torch.get_num_threads():
            torch.set_num_threads(n)

    def before(self, call: Callable[P, T]) -> Callable[P, T]:
        """The same function, which looks first: for what is called between two pieces of work anyway."""

        def looked(*args: P.args, **kwargs: P.kwargs) -> T:
            self()
            return call(*args, **kwargs)

        return looked
