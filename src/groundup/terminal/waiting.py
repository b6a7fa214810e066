"""How many threads PyTorch has on a CPU, and how they wait for each other: set before it is loaded and OpenMP reads it.

A thread that waits may spin until its work comes (no time is lost, a core is taken), or sleep (a core is
free, waking up takes time). GNU's OpenMP spins for about a millisecond. Where the cores are free that is fastest,
by up to a factor of two. Beside other programs the waiting threads keep cores from the threads that they wait for, and
training becomes several times slower than its share. No number of rounds serves both, and as many threads as there are
free cores do better than all of them with any number (docs/log.md has the measurements); where none is free, only if
they wait for each other often, which `runtime.threads` is told later. So a command that computes looks how busy the
cores are before it loads PyTorch. The look takes 60 ms, and up to six times that where they are busy; help, mistakes
and commands that compute nothing do without it.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from groundup.terminal.absent import is_absent, refuse_absent
from groundup.terminal.containers import cores_allowed
from groundup.terminal.say import warn

THREADS = "OMP_NUM_THREADS"
"""The variable that OpenMP reads its number of threads from."""
USUAL_THREADS = "GROUNDUP_USUAL_THREADS"
"""Ours: how many threads there would be, where other programs have left one and no free core for it."""
SPIN = "GOMP_SPINCOUNT"
"""The variable that GNU's OpenMP, which PyTorch brings along on Linux, reads its number of rounds from."""
SPIN_ROUNDS = 1000
"""Beside other programs: some tens of microseconds."""
SERVER_ROUNDS = 12_000
"""Of a server on a quiet machine: half a millisecond, longer than the breaks between two products of one token. A
server stays, whatever is started beside it later, and its clients may use the same cores."""
LOOK_SECONDS = 0.06
"""A few ticks of the kernel's clock."""
LOOKS = 6
"""What one look finds may be over with the next: so many must find the cores busy."""
BUSY_CORES = 0.5
"""Of those that our threads want: so many in use by others make the machine a busy one."""
NO_CORE = 0.5
"""With fewer free cores than that there is none, and a thread has no core of its own anyway."""
KERNEL_TIMES = Path("/proc/stat")
CORES = Path("/sys/devices/system/cpu")


def before_torch(device: str = "auto", *, serving: bool = False, fewer: bool = True) -> None:
    """Choose the threads of this process, and how they wait: a command that computes does it before it loads PyTorch.

    Args:
        device: Where to compute.
        serving: Whether the process stays, for clients of this machine: its threads wait for at most SERVER_ROUNDS, and
            `runtime.threads` chooses their number while it runs.
        fewer: Whether other programs may make threads fewer; not those of a person, or of a run that is resumed.

    Raises:
        UserError: This machine cannot have such a device.
    """
    refuse_absent(device)
    if "torch" in sys.modules:  # then OpenMP has read its variables
        return
    fewer = fewer and not serving and is_for_cpu(device)
    if note := choose_threads(os.environ, quiet=SERVER_ROUNDS if serving else None, fewer=fewer):
        warn(note)


def is_for_cpu(device: str) -> bool:
    """Whether the CPU will compute where this device is asked for, as far as is known without PyTorch."""
    return device == "cpu" or (device == "auto" and is_absent("cuda") and is_absent("mps"))


def choose_threads(
    environ: MutableMapping[str, str],
    cores_in_use: Callable[[], float] | None = None,
    *,
    quiet: int | None = None,
    fewer: bool = True,
) -> str:
    """Where other programs want the cores, have as many threads as are free, and let them sleep soon.

    In a container there are no more than the cores whose time it has. What a person has said stays.

    Args:
        environ: Gets the variables.
        cores_in_use: Of the machine, by others; None looks.
        quiet: Rounds where nobody else wants the cores; None leaves OpenMP its own.
        fewer: Whether other programs may make threads fewer.

    Returns:
        What the person should know; empty where threads are as many as ever.
    """
    own, whole, note = own_cores(), whole_cores(), ""
    usual = n = min(own, whole)
    free = float(usual)
    if not {SPIN, "OMP_WAIT_POLICY"} & set(environ):
        busy = own - BUSY_CORES
        free = _free_cores(cores_in_use or look_at_cores, busy)
        if free < busy:
            environ[SPIN] = str(SPIN_ROUNDS)
            n = min(usual, max(1, round(free))) if fewer else usual
            note = _note(free, n, usual) if n < usual else ""
        elif quiet is not None:
            environ[SPIN] = str(quiet)
    if THREADS in environ:
        return ""
    if n < min(_bound_cores(), whole):  # what PyTorch would take
        environ[THREADS] = str(n)
        if n < usual and free < NO_CORE:
            environ[USUAL_THREADS] = str(usual)
    return note


def without_our_rounds(environ: Mapping[str, str]) -> dict[str, str]:
    """What a process that is to choose for itself begins with: no rounds that were chosen for this one."""
    ours = (str(SPIN_ROUNDS), str(SERVER_ROUNDS))
    return {name: value for name, value in environ.items() if name != SPIN or value not in ours}


def _note(free: float, n: int, usual: int) -> str:
    machine, number = os.cpu_count() or 1, "1 thread" if n == 1 else f"{n} threads"
    return (
        f"other programs use {machine - free:.1f} of {machine} cores: computing with {number} in place of {usual},"
        f" which would wait for each other; {THREADS}={usual} in front of the command overrules it"
    )


def _free_cores(in_use: Callable[[], float], busy: float) -> float:
    """How many cores others leave; fewer than `busy` only if all of some looks find so few."""
    machine = os.cpu_count() or 1
    free, looks = machine - in_use(), 1
    while free < busy and looks < LOOKS:
        free, looks = max(free, machine - in_use()), looks + 1
    return free


def own_cores() -> int:
    """How many cores this process may use: those it is bound to, or so much of their time as a container has."""
    return max(1, round(min(_bound_cores(), cores_allowed())))


def _bound_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def whole_cores() -> int:
    """Cores of the machine, where one that computes for two threads at a time counts once, as PyTorch counts them."""
    lists = (path.read_text(encoding="ascii") for path in CORES.glob("cpu[0-9]*/topology/thread_siblings_list"))
    try:
        return len(set(lists)) or os.cpu_count() or 1
    except OSError:
        return os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Look:
    """At the kernel's clocks, and at ours."""

    idle: int
    """Ticks in which cores ran no program, since the machine started: one that waits for a disk is idle, and so is one
    that the host of a virtual machine gave to another: threads that sleep there get no more."""
    total: int
    ours: float
    """Seconds of processor time of this process."""
    when: float

    @classmethod
    def now(cls) -> "Look":
        """What they say; no ticks where the kernel does not tell."""
        try:
            ticks = [int(word) for word in KERNEL_TIMES.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
            idle, total = ticks[3] + ticks[4] + ticks[7], sum(ticks)
        except (OSError, ValueError, IndexError):
            idle, total = 0, 0
        return cls(idle, total, time.process_time(), time.monotonic())

    def own_cores_since(self, before: "Look") -> float:
        """How many cores this process used."""
        return (self.ours - before.ours) / max(self.when - before.when, 1e-9)

    def others_since(self, before: "Look") -> float:
        """How many cores all other programs used; 0 where the kernel does not tell."""
        passed = self.total - before.total
        if passed <= 0:
            return 0.0
        used = (os.cpu_count() or 1) * (1 - (self.idle - before.idle) / passed)
        return max(0.0, used - self.own_cores_since(before))


def look_at_cores() -> float:
    """How many cores others use, over LOOK_SECONDS in which we do nothing."""
    before = Look.now()
    time.sleep(LOOK_SECONDS)
    return Look.now().others_since(before)


def describe_waiting() -> str:
    """What holds in this process."""
    if policy := os.environ.get("OMP_WAIT_POLICY"):
        return f"as OMP_WAIT_POLICY={policy} says"
    rounds = os.environ.get(SPIN)
    if rounds is None:
        return "by OpenMP's default, which is fastest while no other program wants the cores"
    why = ", because other programs use the cores" if rounds == str(SPIN_ROUNDS) else ""
    return f"{rounds} rounds, then asleep ({SPIN}){why}"
