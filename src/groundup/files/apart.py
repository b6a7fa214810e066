"""Work of a library that can end its process, done in a process of its own, whose death is an error like any other.

That process is given a task, `module:function`, and a file, which it asks this process for, range by range: the file
may lie anywhere. What the function yields comes back as JSON. The process is kept for the next task, and ends with this
one.
"""

import atexit
import contextlib
import functools
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from typing import Any, BinaryIO

from groundup.config.errors import UserError
from groundup.config.limits import APART_BYTES
from groundup.files.streams import RangedFile
from groundup.terminal.python import fresh_python

BUFFER = 1 << 16
"""Bytes asked for at once where a function reads fewer."""


def apart(task: str, file: BinaryIO, said: str, *values: Any) -> Iterator[Any]:
    """What a function yields that is called in another process.

    Args:
        task: `module:function`. It is called with a file like `file` and with `values`.
        file: What it reads.
        said: What messages call the file.
        values: JSON values.

    Raises:
        UserError: The function raised it, or the process died of the file.
    """
    idle = _idle(os.getpid())
    worker = idle.pop() if idle else _Worker()
    try:
        yield from worker.run(task, file, said, values)
    finally:
        if worker.waits:
            idle.append(worker)
        else:
            worker.stop()


@functools.cache
def _idle(pid: int) -> "list[_Worker]":
    """Processes without a task; a forked process has none of its parent's."""
    return []


class _Worker:
    """The other process, as this one sees it."""

    def __init__(self) -> None:
        command, environment = fresh_python("-m", __name__)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the last words of a library that crashes help no user
            env=environment,
        )
        self.waits = True
        """Whether it has no task."""
        atexit.register(self.stop)

    def run(self, task: str, file: BinaryIO, said: str, values: tuple[Any, ...]) -> Iterator[Any]:
        """See `apart`."""
        self.waits = False
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send(self._process.stdin, {"task": task, "size": file.seek(0, 2), "values": values, "said": said})
            while True:
                line = self._process.stdout.readline()
                if not line.endswith(b"\n"):
                    raise self._death(said)
                match json.loads(line.decode(errors="surrogatepass")):
                    case {"read": [start, stop]}:
                        file.seek(start)
                        data = file.read(stop - start)
                        _send(self._process.stdin, {"bytes": len(data)}, data)
                    case {"value": value}:
                        yield value
                    case {"refused": message}:
                        self.waits = True
                        raise UserError(message)
                    case {"failed": trace}:
                        raise RuntimeError(f"in a process apart:\n{trace}")
                    case _:
                        self.waits = True
                        return
        except BrokenPipeError:
            raise self._death(said) from None

    def _death(self, said: str) -> UserError:
        code = self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        return UserError(f"{said} ended the process that read it {how}: it is damaged, or was made to do so")

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:  # a task that will not be done
                    continue
        atexit.unregister(self.stop)


def _send(pipe: BinaryIO | Any, message: dict[str, Any], data: bytes = b"") -> None:
    line = json.dumps(message, ensure_ascii=False).encode(errors="surrogatepass")  # as names of files may hold
    pipe.write(line + b"\n" + data)
    pipe.flush()


def _bound_memory() -> int:
    """Take no more than the limit, where the system can hold a process to it: a small file may unpack to any size.

    Returns:
        What the system allows, where that is less; else 0.
    """
    try:
        import resource
    except ImportError:  # Windows
        return 0
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = APART_BYTES.value if most == resource.RLIM_INFINITY else min(APART_BYTES.value, most)
    with contextlib.suppress(OSError, ValueError):  # macOS knows the limit and does not take it
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    return limit if limit < APART_BYTES.value else 0


def main() -> None:
    """The life of the other process: one task after the other, until no more come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    less = _bound_memory()
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a library prints is no answer

    def fetch(start: int, stop: int) -> bytes:
        _send(answers, {"read": [start, stop]})
        return source.read(json.loads(source.readline())["bytes"])

    for line in iter(source.readline, b""):
        asked = json.loads(line.decode(errors="surrogatepass"))
        module, _, name = asked["task"].partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
            for value in function(io.BufferedReader(RangedFile(fetch, asked["size"]), BUFFER), *asked["values"]):
                _send(answers, {"value": value})
        except MemoryError:
            few = f"{asked['said']} takes more memory than the {less:,} bytes that `ulimit -v` allows; raise that"
            _send(answers, {"refused": few if less else str(APART_BYTES.passed(asked["said"]))})
        except UserError as error:
            _send(answers, {"refused": str(error)})
        except Exception:
            _send(answers, {"failed": traceback.format_exc()})
        else:
            _send(answers, {"done": True})


if __name__ == "__main__":
    main()
