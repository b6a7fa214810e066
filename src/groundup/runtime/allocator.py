"""Keep the memory that a training step frees, which the next step needs again; give back what converting weights frees.

glibc gives large freed blocks back to the kernel at once, and every step faults all of its activations in again, page
by page (docs/log.md has what that costs). Telling malloc to keep what it has costs nothing where a step holds most of
its memory at once. A step that computes blocks again does not, nor do weights that are converted block by block: what
is kept lies between blocks that were freed, and in the end the process would hold several times what it uses.
"""

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Parameters of mallopt(3)."""
_MAX_INT = 2**31 - 1
HUGE_PAGE = 2 << 20
"""Bytes, of the processors that most machines have."""


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to return memory to the kernel; elsewhere, do nothing.

    Returns:
        Whether anything was changed.
    """
    settings = {_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: _MAX_INT, _TOP_PAD: 64 << 20}
    return all(_mallopt(name, value) for name, value in settings.items())


def allocate_for_steps(*, recompute: bool) -> None:
    """`keep_freed_memory` before training; where steps compute blocks again, `give_large_blocks_back`."""
    if recompute:
        give_large_blocks_back()
    else:
        keep_freed_memory()


def give_large_blocks_back() -> None:
    """Let glibc's malloc map blocks from 1 MB on alone, so that each is given back as soon as it is freed.

    PyTorch asks for aligned blocks. What glibc cuts off for the alignment goes to small objects, and large blocks that
    were freed on both sides of one never become one again. A step that computes blocks again frees and asks all the
    time: on the heap it ended with as much memory as one that keeps everything (docs/log.md).
    """
    _mallopt(_MMAP_THRESHOLD, 1 << 20)


@contextmanager
def large_blocks_apart() -> Iterator[None]:
    """`give_large_blocks_back` meanwhile."""
    give_large_blocks_back()
    try:
        yield
    finally:
        _mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that glibc would come to by itself


def forget_pages(address: int, size: int) -> None:
    """Give back the whole pages of a mapped file between two addresses: who looks there again reads the file again.

    Elsewhere than on Linux, do nothing.
    """
    if sys.platform.startswith("linux"):
        _advise(address, size, mmap.MADV_DONTNEED, page=mmap.PAGESIZE)


def ask_for_huge_pages(address: int, size: int) -> None:
    """Let the kernel back the whole 2 MB pieces between two addresses, which nobody has written to yet, by huge pages.

    What is read in one pass is read with a 500th of the addresses to look up. Elsewhere than on Linux, do nothing.
    """
    if sys.platform.startswith("linux"):
        _advise(address, size, mmap.MADV_HUGEPAGE, page=HUGE_PAGE)


def _advise(address: int, size: int, advice: int, *, page: int) -> None:
    """Tell the kernel something about the whole pages between two addresses, if there are any."""
    first, end = -(-address // page) * page, (address + size) // page * page
    if first < end:
        _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), advice)


def _mallopt(parameter: int, value: int) -> bool:
    """Whether glibc took it."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt: Callable[[int, int], int] | None = getattr(_libc(), "mallopt", None)
    return mallopt is not None and bool(mallopt(parameter, value))  # another C library, such as musl, has none


@functools.cache
def _libc() -> ctypes.CDLL:
    """What this process has loaded."""
    return ctypes.CDLL(None)
