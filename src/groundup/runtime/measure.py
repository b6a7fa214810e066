"""What this machine does, measured: matrix products, memory bandwidth, memory used."""

import contextlib
import ctypes
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from groundup.planner.hardware import peak_flops_of
from groundup.runtime.device import device_name
from groundup.runtime.matmul import onednn_is_there, onednn_product
from groundup.runtime.stored import PlainKernels
from groundup.runtime.timing import seconds, synchronize

_DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


GEMM_SHAPE = (2048, 768, 3072)
"""Rows, inner and columns of one of GPT-2's own products: (B T, C) x (C, 4 C)."""
FEWER_ROWS = (256, *GEMM_SHAPE[1:])
"""Enough to compare two precisions by."""


def gemm(device: torch.device, precision: str, shape: tuple[int, int, int] = GEMM_SHAPE) -> Callable[[], None]:
    """A function that makes one product of this shape, the fastest way there is, and returns when it is done."""
    rows, inner, columns = shape
    # A generator of its own: measuring must not move the one that dropout draws from.
    generator = torch.Generator(device).manual_seed(0)
    a = torch.randn(rows, inner, device=device, generator=generator).to(_DTYPES[precision])
    b = torch.randn(inner, columns, device=device, generator=generator).to(_DTYPES[precision])

    def multiply() -> None:
        torch.mm(a, b)
        synchronize(device)

    if precision != "fp32" or not onednn_is_there(device):
        return multiply
    turned = b.T.contiguous()

    def multiply_by_onednn() -> None:
        onednn_product(a, turned)

    return min((multiply, multiply_by_onednn), key=lambda call: min(_within(lambda: seconds(call), 4, QUICK)))


TURNS, WARM_UP = 9, 2
"""How often products are timed; the first of them are not counted, where there is time for more."""
QUICK, LONG_ENOUGH = 0.5, 1.5
"""Seconds after which a slow machine has been measured by the turns that it has made, be it one."""


def gemm_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of a matrix product: the median of seven, or of fewer where they are slow."""
    multiply = gemm(device, precision)
    return 2 * math.prod(GEMM_SHAPE) / _median(lambda: seconds(multiply))


def gemm_speedup(device: torch.device, precision: str, over: str) -> float:
    """How many times as fast products are in one precision as in another.

    The median of seven turns (fewer where they are slow), in each of which both have one: what else the machine does
    slows both down.
    """
    fast, slow = gemm(device, precision, FEWER_ROWS), gemm(device, over, FEWER_ROWS)
    return _median(lambda: seconds(slow) / seconds(fast))


def _median(turn: Callable[[], float]) -> float:
    """The median of the numbers of several turns."""
    numbers = _within(turn, TURNS, LONG_ENOUGH)
    return statistics.median(numbers[WARM_UP:] or numbers[-1:])


def _within(turn: Callable[[], float], most: int, longest: float) -> list[float]:
    """The numbers of so many turns, or of those that began within so many seconds."""
    end = time.perf_counter() + longest
    numbers = [turn()]
    while len(numbers) < most and time.perf_counter() < end:
        numbers.append(turn())
    return numbers


def copy_bandwidth(device: torch.device, *, megabytes: int = 256) -> float:
    """Bytes read plus bytes written per second by a large copy. The median of five."""
    source = torch.ones(megabytes << 18, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    times = [seconds(lambda: target.copy_(source), device) for _ in range(6)]
    return 2 * (megabytes << 20) / statistics.median(times[1:])


def read_bandwidth(kernels: PlainKernels, *, megabytes: int = 512) -> float:
    """Bytes per second that all cores read together, far more than caches hold: the best of nine.

    The best and not the median, because it is a limit: what else the machine does only lowers it.
    """
    data = torch.ones(megabytes << 18, dtype=torch.int32)
    return data.nbytes / min(seconds(lambda: kernels.sum(data)) for _ in range(9))


def known_peak_flops(device: torch.device, precision: str) -> float | None:
    """The ceiling that MFU is a share of, as the data sheet has it, for known GPUs: elsewhere `gemm_rate` is."""
    return peak_flops_of(device_name(device), precision) if device.type == "cuda" else None


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` begin at what is in use now; what was freed goes back to the system. On Linux and on GPUs."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform.startswith("linux"):
        with contextlib.suppress(AttributeError, OSError):  # another C library, or a kernel that does not let us
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: on a GPU by PyTorch's allocator, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # Linux; its ru_maxrss begins with what the parent held when it started this process
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields["VmHWM"].removesuffix("kB")) << 10
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
