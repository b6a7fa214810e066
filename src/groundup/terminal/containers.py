"""What a container leaves to this process: limits of Linux's control groups, of version 2 and of version 1.

Neither PyTorch nor Python's `os` looks at them. With as many threads as the machine has cores, a container that
may use two of them computes for a moment and is then stopped as a whole until the period is over.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

OWN = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Bytes: version 1 writes a number near 2^63 where nothing limits the memory."""


def cores_allowed() -> float:
    """How many cores' time this process may use; infinite where no group limits it."""
    allowed = math.inf
    for group in _groups("cpu"):
        with contextlib.suppress(OSError, ValueError):  # not limited here, or not for us to read
            if (both := group / "cpu.max").is_file():
                quota, period = _text(both).split()
            else:
                quota, period = (_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
            if quota not in ("max", "-1"):
                allowed = min(allowed, int(quota) / int(period))
    return allowed


def memory_left() -> float:
    """Bytes that this process may still take; infinite where no group limits it. File caches can be dropped."""
    left = math.inf
    for group in _groups("memory"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            first = (group / "memory.max").is_file()
            limit, used, cached = (
                ("memory.max", "memory.current", "inactive_file")
                if first
                else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            )
            most = _text(group / limit)
            if most == "max" or int(most) > UNLIMITED:
                continue
            stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
            left = min(left, max(0, int(most) - int(_text(group / used)) + int(stat[cached])))
    return left


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the groups that this process is in, from its own outwards."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = GROUPS / controller if controllers else GROUPS  # version 2 has one tree for all
        own = root / path.lstrip("/")
        yield from (group for group in (own, *own.parents) if group.is_relative_to(root))


def _text(path: Path) -> str:
    return path.read_text(encoding="ascii").strip()
