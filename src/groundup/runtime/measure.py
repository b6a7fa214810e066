"""What this machine does, measured: matrix products, memory bandwidth, memory used."""

import functools
import statistics
import sys
import time

import torch

from groundup.planner.hardware import peak_flops_of
from groundup.runtime.device import device_name

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def gemm_rate(
    device: torch.device, precision: str, *, rows: int = 2048, inner: int = 768, columns: int = 3072
) -> float:
    """FLOP/s of a matrix product, by default one of GPT-2's own: (B T, C) x (C, 4C). The median of seven."""
    # A generator of its own: measuring must not move the one that dropout draws from.
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn(rows, inner, device=device, generator=generator).to(_DTYPES[precision])
    b = torch.randn(inner, columns, device=device, generator=generator).to(_DTYPES[precision])
    times = []
    for _ in range(9):
        start = time.perf_counter()
        torch.mm(a, b)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / statistics.median(times[2:])


def copy_bandwidth(device: torch.device, *, megabytes: int = 256) -> float:
    """Bytes read plus bytes written per second by a large copy. The median of five."""
    source = torch.ones(megabytes << 18, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * (megabytes << 20) / statistics.median(times[1:])


@functools.cache
def peak_flops(device: torch.device, precision: str) -> float:
    """The ceiling that MFU is a share of: the data sheet's for known GPUs, else the measured rate of a product."""
    known = peak_flops_of(device_name(device), precision) if device.type == "cuda" else None
    return known or gemm_rate(device, precision)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: on a GPU by PyTorch's allocator, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
