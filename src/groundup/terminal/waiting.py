"""How PyTorch's threads wait for each other on a CPU: set before PyTorch is loaded, because OpenMP reads it then.

A thread that waits may go round and round until its work comes (no time is lost, a core is taken), or sleep (a core is
free, waking up takes time). GNU's OpenMP goes round for milliseconds. Alone on a machine that costs nothing; beside
other programs the waiting threads keep the cores from those for whom they wait, and training becomes several times
slower than its share. So we let them sleep after fewer rounds, about the time between two operations of a step.
"""

import os
from collections.abc import MutableMapping

SPIN = "GOMP_SPINCOUNT"
"""The variable that GNU's OpenMP, which PyTorch brings along on Linux, reads its number of rounds from."""
SPIN_ROUNDS = 1000
"""Some tens of microseconds (docs/log.md has the measurement)."""


def wait_less(environ: MutableMapping[str, str]) -> None:
    """Let threads sleep soon, unless a person has said how they wait."""
    if not {SPIN, "OMP_WAIT_POLICY"} & set(environ):
        environ[SPIN] = str(SPIN_ROUNDS)


def describe_waiting() -> str:
    """What holds in this process."""
    if policy := os.environ.get("OMP_WAIT_POLICY"):
        return f"as OMP_WAIT_POLICY={policy} says"
    rounds = os.environ.get(SPIN)
    return f"{rounds} rounds, then asleep ({SPIN})" if rounds else f"by OpenMP's default ({SPIN} is not set)"
