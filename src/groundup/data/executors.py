"""Who does the work of a preparation: this process, several of this machine, or a Ray cluster.

An executor takes a function and the arguments of its calls, and yields the results as they come, in any order.
"""

import functools
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from groundup.config.errors import UserError

Executor = Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[Any]]


def run_here(function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """One call after the other."""
    for arguments in calls:
        yield function(*arguments)


def run_processes(workers: int) -> Executor:
    """An executor of `workers` processes on this machine."""
    return functools.partial(_run_processes, workers)


def _run_processes(
    workers: int, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]
) -> Iterator[Any]:
    # Fresh interpreters: a forked one inherits the locks of threads that do not exist in it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(function, *arguments) for arguments in calls]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died (killed, or out of memory); run the command again to go on, with fewer workers"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
