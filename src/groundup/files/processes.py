"""Fresh processes on this machine. Ctrl-C is handled by the process that starts them, and by no other."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import Pipe, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

SAFE_PATH = "PYTHONSAFEPATH"
"""Tells Python what -P does."""
_PR_SET_PDEATHSIG = 1
"""Option of prctl(2)."""


def start_process(target: Callable[..., object], *args: Any, daemon: bool = True) -> SpawnProcess:
    """Start a fresh interpreter that calls a function; a forked one would inherit the locks of threads it has not.

    A terminal sends Ctrl-C to every process in it. This one takes no notice, from its first moment on: the process that
    started it ends it. Where that process is killed, this one ends by itself.

    Args:
        target: A function of a module.
        args: Its arguments, which are pickled.
        daemon: The process ends with the interpreter that starts it, and may start none itself.
    """
    process = multiprocessing.get_context("spawn").Process(target=_live, args=(target, *args), daemon=daemon)
    with _safe_path(), _no_interrupt():
        process.start()
    return process


@contextlib.contextmanager
def piped(target: Callable[..., object], *args: Any, daemon: bool = True) -> Iterator[Connection]:
    """A fresh process, until the end of `with`, and this end of a pipe to it; its function gets the other end first."""
    ours, theirs = Pipe()
    process = start_process(target, theirs, *args, daemon=daemon)
    theirs.close()
    try:
        yield ours
    finally:
        process.terminate()
        process.join()


def end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent of this process dies: nobody else would end it, or start it again."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """See that a process does not take files of the working folder for Python's own before it knows our places."""
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(SAFE_PATH, None)
        else:
            os.environ[SAFE_PATH] = before


@contextlib.contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold Ctrl-C back while a process starts: its first moments would be a traceback, half a start its last."""
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


def _live(target: Callable[..., object], *args: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    target(*args)


def _die_with_parent() -> None:
    """A parent that was killed cannot stop its processes; they must not go on beside those of the next attempt."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
