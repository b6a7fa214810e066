"""torch.compile, tried before it is trusted.

Compiling costs seconds to minutes once and may save a share of every step. `auto` measures both and keeps the
compiled module only when the run is long enough to earn the cost back; a machine without a compiler, or a model the
compiler fails on, goes on uncompiled, with one line that says why.
"""

import contextlib
import signal
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import cast

import torch
from torch import nn

from groundup.config.errors import UserError, first_line
from groundup.runtime.timing import fastest
from groundup.terminal.python import fresh_python

COMPILE_SECONDS = 60.0
"""A compilation takes about this long on a CPU; `auto` does not try when all steps together could not save it."""
BEST_GAIN = 0.4
"""The largest share of a step that compiling has been seen to save here."""
LONGEST = 600.0
"""Seconds after which a compilation is given up: on a busy machine it may take long, and nobody has asked for it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The module to train with, and how it was chosen."""

    module: nn.Module
    compiled: bool
    note: str = ""
    """What the person should know; empty when there is nothing to say."""


def maybe_compile(
    module: nn.Module,
    *,
    mode: str,
    run: Callable[[nn.Module], None],
    n_runs: int,
    device: torch.device,
    doing: Callable[[str, float], None] = lambda what, limit: None,
    longest: float = LONGEST,
) -> Choice:
    """Compile a module where that is asked for, or pays.

    Args:
        module: What to compile; used as it is where that does not pay.
        mode: on, off or auto.
        run: Runs a module once, forward and backward, without a lasting effect.
        n_runs: How often the run will do that.
        device: Where it computes.
        doing: Told that it begins, and the seconds after which it is given up (0 is never).
        longest: Seconds that `auto` gives it, where the run could save as much; `on` waits for it.

    Raises:
        UserError: mode is on and the compiler fails.
    """
    if mode == "off":
        return Choice(module, compiled=False)
    usual = 0.0
    if mode == "auto":
        usual = fastest(lambda: run(module), device)
        if n_runs * usual * BEST_GAIN < COMPILE_SECONDS:
            return Choice(module, compiled=False)
    limit = min(longest, n_runs * usual * BEST_GAIN) if mode == "auto" else 0.0
    doing("trying torch.compile (--runtime.compile off does without)", limit)
    start = time.perf_counter()
    try:
        compiled = _compiled(module, run, limit)
    except _FailedError as failure:
        if mode == "on":
            raise UserError(f"{failure}; use --runtime.compile off") from failure
        return Choice(module, compiled=False, note=f"not compiled: {failure}")
    if mode == "on":
        return Choice(compiled, compiled=True)
    cost = time.perf_counter() - start
    faster = fastest(lambda: run(compiled), device)
    if n_runs * (usual - faster) <= cost:
        return Choice(
            module,
            compiled=False,
            note=f"not compiled: {faster * 1e3:.1f} ms instead of {usual * 1e3:.1f} ms a pass would not pay",
        )
    return Choice(
        compiled,
        compiled=True,
        note=f"compiled: {faster * 1e3:.1f} ms instead of {usual * 1e3:.1f} ms a pass",
    )


def try_compiler(device: torch.device, *, longest: float) -> str:
    """Whether something tiny compiles here, in words.

    It is tried in another process: a compiler that is interrupted may go on for a while, a process can be ended.

    Args:
        device: For which device.
        longest: Seconds after which it is ended.
    """
    code = f"from {__name__} import compile_something; print(compile_something({str(device)!r}))"
    command, environment = fresh_python("-c", code)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # With a cache of its own: an earlier success cannot hide a missing compiler.
        caches = dict.fromkeys(("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"), folder)
        try:
            done = subprocess.run(
                command,
                env={**environment, **caches, "TORCHINDUCTOR_VEC_ISA_OK": "0"},  # without vectors: half the time
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=longest,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"was given up after {longest:.0f} s"
    said = (done.stdout if done.returncode == 0 else done.stderr).decode(errors="replace").strip()
    last = said.rpartition("\n")[2] or f"exit code {done.returncode}"
    return last if done.returncode == 0 else f"does not work here ({last})"


def compile_something(device: str) -> str:
    """Compile something tiny in this process, and say in words whether it works."""
    module = nn.ReLU()  # on a CPU a product would be a library's, and call no compiler
    x = torch.ones(2, 8, device=device)
    try:
        _compiled(module, lambda m: m(x), 0.0)
    except _FailedError as failure:
        return str(failure).removeprefix("torch.compile ")
    return "works"


class _FailedError(Exception):
    """Compiling failed, or took too long; the message says which."""


def _compiled(module: nn.Module, run: Callable[[nn.Module], None], limit: float) -> nn.Module:
    compiled = cast("nn.Module", torch.compile(module, dynamic=False))
    start = time.perf_counter()
    try:
        with _at_most(limit), warnings.catch_warnings(action="ignore"):  # PyTorch's on what is interrupted
            run(compiled)
    except Exception as error:  # the compiler wraps ours in its own, and fails in many ways
        if limit and time.perf_counter() - start >= limit:
            raise _FailedError(f"torch.compile was given up after {limit:.0f} s") from error
        raise _FailedError(f"torch.compile does not work here ({first_line(error)})") from error
    return compiled


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after so many seconds (0 is never), where the system can: in the main thread, not on Windows.

    It is raised again every second, as what compiles may run where an exception is dropped.
    """
    if not seconds or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)
