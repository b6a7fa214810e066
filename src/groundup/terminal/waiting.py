"""How PyTorch's threads wait for each other on a CPU: set before PyTorch is loaded, because OpenMP reads it then.

A thread that waits may spin until its work comes (no time is lost, a core is taken), or sleep (a core is
free, waking up takes time). GNU's OpenMP spins for about a millisecond. Where the cores are free that is fastest,
by up to a factor of two. Beside other programs the waiting threads keep cores from the threads that they wait for, and
training becomes several times slower than its share. No number of rounds serves both (docs/log.md has the
measurements), so a command that computes looks how busy the cores are before it loads PyTorch. The look takes 60 ms;
help, mistakes and commands that compute nothing do without it.
"""

import os
import sys
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path

from groundup.terminal.absent import refuse_absent

SPIN = "GOMP_SPINCOUNT"
"""The variable that GNU's OpenMP, which PyTorch brings along on Linux, reads its number of rounds from."""
SPIN_ROUNDS = 1000
"""Beside other programs: some tens of microseconds."""
SERVER_ROUNDS = 12_000
"""Of a server on a quiet machine: half a millisecond, longer than the breaks between two products of one token. A
server stays, whatever is started beside it later, and its clients may use the same cores."""
LOOK_SECONDS = 0.06
"""A few ticks of the kernel's clock."""
BUSY_CORES = 0.5
"""Of those that our threads want: so many in use by others make the machine a busy one."""
KERNEL_TIMES = Path("/proc/stat")


def before_torch(device: str = "auto", *, serving: bool = False) -> None:
    """Choose how the threads of this process wait. A command that computes calls this before it loads PyTorch.

    Args:
        device: Where to compute.
        serving: Whether the process stays, for clients of this machine: then at most SERVER_ROUNDS.

    Raises:
        UserError: This machine cannot have such a device.
    """
    refuse_absent(device)
    if "torch" not in sys.modules:  # else OpenMP has read its variables
        wait_less(os.environ, quiet=SERVER_ROUNDS if serving else None)


def wait_less(
    environ: MutableMapping[str, str],
    cores_in_use: Callable[[], float] | None = None,
    *,
    quiet: int | None = None,
) -> None:
    """Let threads sleep soon where other programs want the cores, unless a person has said how they wait.

    Args:
        environ: Gets the variable.
        cores_in_use: Of the machine, by others; None looks.
        quiet: Rounds where nobody else wants the cores; None leaves OpenMP its own.
    """
    if {SPIN, "OMP_WAIT_POLICY"} & set(environ):
        return
    free = (os.cpu_count() or 1) - (cores_in_use or look_at_cores)()
    if free < own_cores() - BUSY_CORES:
        environ[SPIN] = str(SPIN_ROUNDS)
    elif quiet is not None:
        environ[SPIN] = str(quiet)


def own_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def look_at_cores() -> float:
    """How many cores compute, over LOOK_SECONDS in which we do nothing; 0 where the kernel does not say."""
    try:
        idle, total = _ticks()
        time.sleep(LOOK_SECONDS)
        idle_then, total_then = _ticks()
    except (OSError, ValueError, IndexError):
        return 0.0
    passed = total_then - total
    return (os.cpu_count() or 1) * (1 - (idle_then - idle) / passed) if passed > 0 else 0.0


def _ticks() -> tuple[int, int]:
    """Of all cores since the machine started: idle ones (waiting for a disk is idle), and all that have passed."""
    ticks = [int(word) for word in KERNEL_TIMES.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def describe_waiting() -> str:
    """What holds in this process."""
    if policy := os.environ.get("OMP_WAIT_POLICY"):
        return f"as OMP_WAIT_POLICY={policy} says"
    rounds = os.environ.get(SPIN)
    if rounds is None:
        return "by OpenMP's default, which is fastest while no other program wants the cores"
    why = ", because other programs use the cores" if rounds == str(SPIN_ROUNDS) else ""
    return f"{rounds} rounds, then asleep ({SPIN}){why}"
