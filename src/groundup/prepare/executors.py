"""Where the work of a preparation is done: this process, or several on this machine (many machines: `executors_ray`).

An executor takes a function and the arguments of its calls, and yields the results as they come, in any order.
"""

import functools
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from groundup.config.errors import UserError
from groundup.files.processes import start_process
from groundup.terminal.ended import killed_by

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
        self.connection, theirs = Pipe()
        self._process = start_process(_serve, function, theirs)
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
        how = f"was {killed_by(code)}" if code < 0 else f"ended with code {code}"
        did = ", ".join(map(str, self._call))
        return UserError(f"a worker process {how} at {did}; run the command again to go on")

    def stop(self) -> None:
        """End the process, whatever it does: half-made results have no name."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(function: Callable[..., Any], connection: Connection) -> None:
    """The life of a worker."""
    while True:
        arguments = connection.recv()
        try:
            answer = ("returned", function(*arguments))
        except UserError as error:
            answer = ("refused", str(error))
        except BaseException:  # Rust panics of a tokenizer are no Exceptions
            answer = ("failed", traceback.format_exc())
        connection.send(answer)
