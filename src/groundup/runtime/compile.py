"""torch.compile, tried before it is trusted.

Compiling costs seconds to minutes once and may save a share of every step. `auto` measures both and keeps the
compiled module only when the run is long enough to earn the cost back; a machine without a compiler, or a model the
compiler fails on, goes on module, with one line that says why.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from groundup.config.errors import UserError
from groundup.runtime.timing import seconds

COMPILE_SECONDS = 60.0
"""A compilation takes about this long on a CPU; `auto` does not try when all steps together could not save it."""
BEST_GAIN = 0.4
"""The largest share of a step that compiling has been seen to save here."""


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
    say: Callable[[str], None] = lambda _: None,
) -> Choice:
    """Compile a module where that is asked for, or pays.

    Args:
        module: What to compile; used as it is where that does not pay.
        mode: on, off or auto.
        run: Runs a module once, forward and backward, without a lasting effect.
        n_runs: How often the run will do that.
        device: Where it computes.
        say: Told that it begins: it is silent for long, and the longer the busier the machine is.

    Raises:
        UserError: mode is on and the compiler fails.
    """
    if mode == "off":
        return Choice(module, compiled=False)
    usual = 0.0
    if mode == "auto":
        usual = _fastest(lambda: run(module), device)
        if n_runs * usual * BEST_GAIN < COMPILE_SECONDS:
            return Choice(module, compiled=False)
    say("trying torch.compile, which may take minutes (--runtime.compile off does without)")
    compiled = cast("nn.Module", torch.compile(module, dynamic=False))
    start = time.perf_counter()
    try:
        run(compiled)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if mode == "on":
            raise UserError(f"torch.compile does not work here: {reason}; use --runtime.compile off") from error
        return Choice(module, compiled=False, note=f"not compiled: torch.compile does not work here ({reason})")
    if mode == "on":
        return Choice(compiled, compiled=True)
    cost = time.perf_counter() - start
    faster = _fastest(lambda: run(compiled), device)
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


def _fastest(call: Callable[[], None], device: torch.device) -> float:
    """Seconds of the fastest of three calls after one to warm up."""
    return min([seconds(call, device) for _ in range(4)][1:])
