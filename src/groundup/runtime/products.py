"""Which library multiplies matrices on a CPU: PyTorch's default (MKL), or oneDNN where it is faster.

MKL keeps its AVX-512 kernels for Intel's processors. oneDNN has its own for everybody, and on AMD's it runs GPT-2's
fp32 products twice as fast (docs/log.md). PyTorch uses it for 16 bits and compiled inference only, so it is called by
name here. Both compute in float32: results differ by rounding, as between any two libraries.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

MIN_ROWS = 16
"""Products of fewer rows (decoding) are bound by reading the weights, whoever multiplies."""
MIN_SPEEDUP = 1.15
"""oneDNN must be measured this much faster before it is used."""


def pick_products(requested: str, device: torch.device, *, rows: int, n_embd: int) -> str:
    """Who multiplies in a run: "default" or "onednn".

    Args:
        requested: One of them, or auto, which measures both.
        device: Where the run computes; there is a choice on CPUs only.
        rows: Tokens of a micro-batch.
        n_embd: Width of the model.
    """
    if requested != "auto":
        return requested
    if not onednn_is_there(device):
        return "default"
    weight = torch.randn(4 * n_embd, n_embd)
    x = torch.randn(min(rows, 2048), n_embd, requires_grad=True)
    grad = torch.randn(len(x), len(weight))

    def step(linear: Callable[..., Tensor]) -> None:
        torch.autograd.backward(linear(x, weight.requires_grad_(), None), grad)

    usual = min(_seconds(step, F.linear) for _ in range(5))
    ours = min(_seconds(step, _Linear.apply) for _ in range(5))
    return "onednn" if usual > MIN_SPEEDUP * ours else "default"


def onednn_is_there(device: torch.device) -> bool:
    """Whether this build of PyTorch can be asked for oneDNN's products on this device."""
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return device.type == "cpu" and built and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def onednn_product(
    x: Float[Tensor, "B C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None = None
) -> Float[Tensor, "B D"]:
    """X @ weight.T + bias."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class WithOneDNN(nn.Module):
    """A module whose `F.linear` in float32 on the CPU is computed by oneDNN, forward and backward."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any) -> Any:
        """What the module returns."""
        with _OneDNN():
            return self.module(*args)


class _OneDNN(TorchFunctionMode):
    """While it is entered, `F.linear` is ours where it can be."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and _suits(*args):
            return _Linear.apply(*args, *[None] * (3 - len(args)))  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


def _suits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.numel() >= MIN_ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
    )


class _Linear(torch.autograd.Function):
    """x @ weight.T + bias, all three products by oneDNN."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*B C"], weight: Float[Tensor, "D C"], bias: Float[Tensor, " D"] | None
    ) -> Float[Tensor, "*B D"]:
        rows = x.flatten(0, -2)
        ctx.save_for_backward(rows, weight)
        return onednn_product(rows, weight, bias).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "*B D"]) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        need_x, need_weight, need_bias = ctx.needs_input_grad
        grad_x = onednn_product(rows, weight.T).view(*grad.shape[:-1], weight.shape[1]) if need_x else None
        # (C, D), turned: this way around oneDNN is a third faster than for (D, C)
        grad_weight = onednn_product(x.T, rows.T).T if need_weight else None
        return grad_x, grad_weight, rows.sum(0) if need_bias else None


def _seconds(step: Callable[[Any], None], linear: Any) -> float:
    start = time.perf_counter()
    step(linear)
    return time.perf_counter() - start
