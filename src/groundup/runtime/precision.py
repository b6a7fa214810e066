"""The arithmetic of the matrix products: chosen by what the hardware does well, not by habit.

| hardware | auto takes | why |
|---|---|---|
| NVIDIA from Ampere on | bf16 | the matrix units do it 16 times as fast as fp32, and its range needs no loss scaling |
| NVIDIA before (T4, V100, P100) | fp16 | their matrix units know no bf16; small gradients need loss scaling |
| Apple | fp32 | 16-bit autocast is not faster there |
| CPU whose bf16 products measure 1.5 times as fast, width 256 or more | bf16 | the products are most of a step |
| the same with AVX-512 BF16, width 128 to 255 | bf16 | kernels narrow what they read, where others cast first |
| other CPUs | fp32 | bf16 is emulated, several times slower |

Weights, gradients, optimizer state and the loss stay in float32 in every mode (mixed precision, Micikevicius et
al. 2018): only the inputs of products are narrowed.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from groundup.config.errors import UsageError
from groundup.runtime.measure import gemm_speedup
from groundup.runtime.remember import machine_id, remembered

PrecisionName = Literal["fp32", "tf32", "bf16", "fp16"]
_NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}

CUDNN_FIRST = (9, 0)
"""The compute capability whose attention cuDNN computes fastest: Hopper's (H100, H200)."""
ATTENTION_ON_HOPPER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
CHOICES = "precision.json"
"""Holds what this machine measured once: near the bound, each run would else choose anew."""
CPU_SPEEDUP = 1.5
"""Bf16 products must be measured this much faster than fp32 before a CPU uses them."""
NARROWEST, NARROWEST_OF_LIBRARIES = 128, 256
"""Least n_embd that gains by bf16 where our kernels multiply in it, and where libraries do, between whose products are
casts that eat what a narrow model saves (docs/log.md has the measurements)."""


@dataclass(frozen=True, slots=True)
class Precision:
    """How matrix products are computed on one device."""

    name: PrecisionName
    device: torch.device
    why: str

    @property
    def half(self) -> bool:
        """Whether products take 16-bit numbers."""
        return self.name in _NARROW

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which products run in this precision."""
        if self.half and self.device.type == "cuda":
            return _on_cuda(self.device, _NARROW[self.name])
        if self.half:
            return torch.autocast(self.device.type, dtype=_NARROW[self.name])
        if self.name == "tf32":
            return _tf32()
        return contextlib.nullcontext()

    @property
    def needs_scaler(self) -> bool:
        """Whether the loss must be scaled so that small gradients survive: fp16 only."""
        return self.name == "fp16"


@contextlib.contextmanager
def _on_cuda(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Autocast, and on Hopper attention by cuDNN first: there, and on no other GPU that was measured, it is faster."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast("cuda", dtype=dtype))
        if torch.cuda.get_device_capability(device) == CUDNN_FIRST:
            stack.enter_context(sdpa_kernel(ATTENTION_ON_HOPPER, set_priority=True))
        yield


@contextlib.contextmanager
def _tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def pick_precision(requested: str, device: torch.device, *, n_embd: int) -> Precision:
    """The precision of a run.

    Args:
        requested: A name, or auto.
        device: Where products are computed.
        n_embd: Width of the model: 16 bits do not make narrow ones faster on a CPU.

    Raises:
        UsageError: There is no such precision, or it is none of this device.
    """
    if requested not in ("auto", *get_args(PrecisionName)):
        raise UsageError(f"precision must be one of auto, {', '.join(get_args(PrecisionName))}, got {requested!r}")
    if device.type == "cpu" and requested in ("tf32", "fp16"):  # emulated, or not there at all
        raise UsageError(f"precision {requested} is for GPUs; take fp32, bf16 or auto on a CPU")
    best = _best(device, n_embd)
    if requested in ("auto", best.name):
        return best
    name: PrecisionName = requested  # type: ignore[assignment]
    return Precision(name, device, f"asked for; this machine would take {best.name}: {best.why}")


def _best(device: torch.device, n_embd: int) -> Precision:
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return Precision("bf16", device, f"compute capability {major}.{minor} has bf16 matrix units")
        return Precision("fp16", device, f"compute capability {major}.{minor} has fp16 matrix units but no bf16")
    if device.type == "mps":
        return Precision("fp32", device, "16-bit autocast is not faster on Apple GPUs")
    narrowest = narrowest_in_bf16()
    if narrowest is None:
        return Precision("fp32", device, "this CPU has no bf16 products")
    if n_embd < narrowest:
        return Precision("fp32", device, f"below a width of {narrowest} 16 bits are no faster on this CPU")
    faster = remembered(
        CHOICES, f"{machine_id()}, torch {torch.__version__}", ("bf16", "fp32"), partial(_faster, device)
    )
    if faster == "bf16":
        return Precision("bf16", device, f"bf16 products measured at least {CPU_SPEEDUP} times as fast as fp32")
    return Precision("fp32", device, f"bf16 products measured less than {CPU_SPEEDUP} times as fast as fp32")


def _faster(device: torch.device) -> PrecisionName:
    return "bf16" if gemm_speedup(device, "bf16", over="fp32") >= CPU_SPEEDUP else "fp32"


def narrowest_in_bf16() -> int | None:
    """Least n_embd that bfloat16 may pay for on this CPU; None where PyTorch emulates it, many times as slowly."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if known.get("avx512_bf16"):
        return NARROWEST
    return NARROWEST_OF_LIBRARIES if known.get("amx_bf16") or known.get("bf16") else None
