"""Keep the memory that a training step frees: the next step needs it again.

glibc gives large freed blocks back to the kernel at once, and every step faults all of its activations in again, page
by page (docs/log.md has what that costs). Telling malloc to keep what it has costs nothing: the process never holds
more than its own peak.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""
_MAX_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to return memory to the kernel; elsewhere, do nothing.

    Returns:
        Whether anything was changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return False
    settings = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: _MAX_INT, _TOP_PAD: 64 << 20}
    return all(mallopt(name, value) for name, value in settings.items())
