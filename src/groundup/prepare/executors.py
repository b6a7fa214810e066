"""Where the work of a preparation is done: this process, or several on this machine (many machines: `executors_ray`).

An executor takes a function and the arguments of its calls, and yields the results as they come, in any order.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from groundup.config.errors import UserError

Call = tuple[Any, ...]
"""Arguments: small, for they travel. What all calls share is bound to the function, and travels once a worker."""
Executor = Callable[[Callable[..., Any], Sequence[Call]], Iterator[Any]]


def run_here(function: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Any]:
    """One call after the other."""
    for arguments in calls:
        yield function(*arguments)


def run_processes(workers: int) -> Executor:
    """An executor of `workers` processes on this machine.

    It raises UserError when a call does, or when a worker dies: at the call that it was doing, which is named.
    """
    return functools.partial(_run_processes, workers)


def _run_processes(workers: int, function: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Any]:
    # Not concurrent.futures: its pool pickles the function with every call, and cannot say what a dead worker did.
    waiting = deque(calls)
    crew: list[_Worker] = []
    try:
        for _ in range(min(workers, len(calls))):
            crew.append(_Worker(function))
            crew[-1].start(waiting.popleft())
        busy = {worker.connection: worker for worker in crew}
        while busy:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                result = worker.result()
                if waiting:
                    worker.start(waiting.popleft())
                else:
                    del busy[worker.connection]
                yield result
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """A process that makes one call at a time."""

    def __init__(self, function: Callable[..., Any]) -> None:
        # Fresh interpreters: a forked one inherits the locks of threads that do not exist in it.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(target=_serve, args=(function, theirs), daemon=True)
        with _no_interrupt():
            self._process.start()
        theirs.close()
        self._call: Call = ()

    def start(self, call: Call) -> None:
        """Hand over a call."""
        self._call = call
        try:
            self.connection.send(call)
        except BrokenPipeError:
            raise self._death() from None

    def result(self) -> Any:
        """Wait for what the call returns.

        Raises:
            UserError: The call did, or the process died.
        """
        try:
            kind, value = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._death() from None
        if kind == "returned":
            return value
        raise UserError(value) if kind == "refused" else RuntimeError(f"in a worker process:\n{value}")

    def _death(self) -> UserError:
        self._process.join()
        code = self._process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        hint = " (out of memory?)" if how.endswith("SIGKILL") else ""  # which Windows does not know
        did = ", ".join(map(str, self._call))
        return UserError(f"a worker process {how}{hint} at {did}; run the command again to go on")

    def stop(self) -> None:
        """End the process, whatever it does: half-made results have no name."""
        self._process.kill()
        self._process.join()
        self.connection.close()


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back while a process starts. That process never gets it: its first moments would be a traceback."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # starting it later would let Ctrl-C in again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # inherited by the process
    # The mask is this thread's alone: another thread can take the signal, and Python then acts on it in the main one.
    heard: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda signum, _: heard.append(signum)) if main else None
    try:
        yield
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if heard:
            signal.raise_signal(signal.SIGINT)


def _serve(function: Callable[..., Any], connection: Connection) -> None:
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        arguments = connection.recv()
        try:
            answer = ("returned", function(*arguments))
        except UserError as error:
            answer = ("refused", str(error))
        except BaseException:  # Rust panics of a tokenizer are no Exceptions
            answer = ("failed", traceback.format_exc())
        connection.send(answer)


def _die_with_parent() -> None:
    """A parent that was killed cannot stop its workers; they must not go on beside those of the next attempt."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
