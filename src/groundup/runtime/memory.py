"""How much memory is left, and what an error of missing memory looks like."""

import os
import sys
from pathlib import Path

import torch

from groundup.terminal.containers import memory_left

_WORDS = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How PyTorch says it on a CPU, on Windows, and where a library of CUDA's asks for memory itself."""
_UNKNOWN = 4 << 30
"""Bytes assumed to be free on a machine that does not report it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or of its GPU was too small."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def free_memory(device: torch.device) -> int:
    """Bytes that one device could still give, to all processes together."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if sys.platform == "darwin":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS counts free memory in its own way
    if not sys.platform.startswith("linux"):
        return _UNKNOWN
    rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(min(int(rows["MemAvailable"].split()[0]) << 10, memory_left()))


def release_cached(device: torch.device) -> None:
    """Return cached blocks to the system: PyTorch holds them for sizes that will not come again."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
