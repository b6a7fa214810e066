"""Names of what is being written, and the end of what a killed process left under such names.

A name tells machine and process: on a shared disk, only the machine that a process ran on can know that it is dead. A
container counts its processes anew, so it is a machine of its own, whatever name it has.
"""

import contextlib
import functools
import os
import re
import shutil
import socket
import zlib
from pathlib import Path
from typing import Literal

PROCESS_NUMBERS = Path("/proc/self/ns/pid")
"""A link, the same for all processes that are counted together."""
_LEFTOVER = re.compile(r"\.(?:tmp|trash)-.*-([0-9a-f]{8})-([0-9]+)", re.DOTALL)


def temporary_name(path: Path, kind: Literal["tmp", "trash"] = "tmp") -> Path:
    """Where `path` is made before it gets its name, or goes when it loses it: in the same folder."""
    name = os.fsdecode(os.fsencode(path.name)[:200])  # a file's name may have 255 bytes
    return path.with_name(f".{kind}-{name}-{_machine()}-{os.getpid()}")


def sweep_dead(folder: Path) -> None:
    """Remove what processes of this machine that are dead were making, or removing, in a folder."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            found = _LEFTOVER.fullmatch(path.name)
            if found and found[1] == _machine() and not _is_alive(int(found[2])):
                remove_leftover(path)


@functools.cache
def sweep_dead_once(folder: Path) -> None:
    """`sweep_dead`, once per process: a folder of many files must not be listed for each of them."""
    sweep_dead(folder)


def remove_leftover(path: Path) -> None:
    """Remove a file or folder, as far as the disk lets us."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _machine() -> str:
    """A short name of this machine or container; host names may be as long as a file's name."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):  # Linux has it
        name += str(PROCESS_NUMBERS.readlink())
    return f"{zlib.crc32(name.encode()):08x}"


def _is_alive(pid: int) -> bool:
    """Whether a process of this number runs: perhaps another one, which only means that the leftover stays."""
    if os.name != "posix":  # Windows would end the process that is asked
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
