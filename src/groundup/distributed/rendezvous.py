"""How the ranks of one start find each other, and no others.

torchrun's store outlives a restart, and so do addresses of dead processes in it. Nor does torchrun tell how often the
processes of other machines were started. So each start gets a name that rank 0 draws, and all its keys lie under it:

    rank 1..n-1   question/RANK = mine ------------------> store
    rank 0        for every question: answer/MINE = name -> store
    rank 1..n-1   waits for answer/mine, reads the name, adds 1 to heard/name
    rank 0        ends when heard/name is n - 1

A rank asks under a name that it has just drawn, so an answer to a dead process is never taken for its own.
"""

import datetime
import secrets
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

T = TypeVar("T")
ANSWER_SECONDS = 10.0
"""The store is a thread that answers in milliseconds, also while its process computes; one that does not is stopped."""


def meet(rank: int, size: int, timeout: float) -> tuple[Store, Store]:
    """Wait until all ranks of this start are there.

    Args:
        rank: Of this process.
        size: Processes that are expected.
        timeout: Seconds to wait for them.

    Returns:
        A store for this start alone, and the job's store, whose contents outlive a restart by torchrun.

    Raises:
        RuntimeError: Not all ranks came in time, or the store cannot be reached.
    """
    limit = datetime.timedelta(seconds=timeout)
    store, _, _ = _within(timeout + ANSWER_SECONDS, lambda: next(iter(rendezvous("env://", timeout=limit))))
    job_store = store.underlying_store if isinstance(store, PrefixStore) else store  # without the restart's number
    return PrefixStore(_name_of_this_start(store, rank, size, timeout), store), job_store


def _name_of_this_start(store: Store, rank: int, size: int, timeout: float) -> str:
    mine = secrets.token_hex(8)
    if rank:
        store.set(f"groundup/question/{rank}", mine)
        name = store.get(f"groundup/answer/{mine}").decode()
        store.add(f"groundup/heard/{name}", 1)
        return name
    end = time.monotonic() + timeout
    while store.add(f"groundup/heard/{mine}", 0) < size - 1:
        for other in range(1, size):
            if store.check([question := f"groundup/question/{other}"]):
                store.set(f"groundup/answer/{store.get(question).decode()}", mine)
        if time.monotonic() > end:
            raise RuntimeError(f"timed out after {timeout:g} seconds: not all ranks have come")
        time.sleep(0.01)
    return mine


def answered(ask: Callable[[], T]) -> T:
    """Ask the store, which never answers where the process that holds it is stopped.

    Raises:
        RuntimeError: It did not.
    """
    return _within(ANSWER_SECONDS, ask)


def _within(seconds: float, act: Callable[[], T]) -> T:
    """Do what may never return. A thread that hangs in it ends with the process.

    Raises:
        RuntimeError: It took longer, or it raised one.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(act())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise RuntimeError(f"timed out after {seconds:g} seconds: rank 0, or what started the ranks, hangs")
    return results[0]
