"""Keep the memory that a training step frees, which the next step needs again; give back what converting weights frees.

glibc gives large freed blocks back to the kernel at once, and every step faults all of its activations in again, page
by page (docs/log.md has what that costs). Telling malloc to keep what it has costs nothing: the process never holds
more than its own peak. Weights that are converted block by block are another case: what is kept lies between blocks
that were freed, and in the end the process would hold twice what it uses.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""
_MAX_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to return memory to the kernel; elsewhere, do nothing.

    Returns:
        Whether anything was changed.
    """
    settings = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: _MAX_INT, _TOP_PAD: 64 << 20}
    return all(_mallopt(name, value) for name, value in settings.items())


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """Let glibc's malloc map blocks from 1 MB on alone meanwhile, so that each is given back as soon as it is freed."""
    _mallopt(_MMAP_THRESHOLD, 1 << 20)
    try:
        yield
    finally:
        _mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that glibc would come to by itself


def _mallopt(parameter: int, value: int) -> bool:
    """Whether glibc took it."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(parameter, value))  # another C library, such as musl, has none
