"""Which library multiplies matrices on a CPU: PyTorch's default (MKL), or oneDNN where it is faster.

MKL keeps its AVX-512 kernels for Intel's processors. oneDNN has its own for everybody, and on AMD's it runs GPT-2's
fp32 products twice as fast (docs/log.md). PyTorch uses it for 16 bits and compiled inference only, so it is called by
name here. Both compute in float32: results differ by rounding, as between any two libraries.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

Products = Literal["default", "onednn"]

MIN_SPEEDUP = 1.15
"""oneDNN must be measured this much faster before it is used."""
MIN_WIDTH_OF_DECODING = 256
"""Narrower models decode one token faster than the detour to oneDNN takes."""


@functools.cache
def pick_products(device: torch.device, *, rows: int, n_embd: int, training: bool) -> Products:
    """Who multiplies, measured once a process.

    Args:
        device: Where it is computed; there is a choice on CPUs only.
        rows: Tokens at a time.
        n_embd: Width of the model.
        training: Forward and backward, or forward alone.
    """
    if not onednn_is_there(device) or (not training and n_embd < MIN_WIDTH_OF_DECODING):
        return "default"
    generator = torch.Generator().manual_seed(0)  # measuring must not move the one that dropout draws from
    weight = torch.randn(4 * n_embd, n_embd, generator=generator)
    x = torch.randn(min(rows, 2048), n_embd, generator=generator)
    grad = torch.randn(len(x), len(weight), generator=generator)

    def step(linear: Callable[..., Tensor]) -> None:
        if training:
            torch.autograd.backward(linear(x.requires_grad_(), weight.requires_grad_(), None), grad)
        else:
            linear(x, weight, None)

    with torch.set_grad_enabled(training):
        usual = min(_seconds(step, F.linear) for _ in range(5))
        ours = min(_seconds(step, _linear) for _ in range(5))
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
    """A module whose `F.linear` in float32 on the CPU is computed by oneDNN, forward and backward.

    Parts of it that compute again during the backward pass, which runs outside of `forward`, are told to do it alike.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for part in module.modules():
            if hasattr(part, "recompute_context"):
                part.recompute_context = _OneDNN  # type: ignore[assignment]

    def forward(self, *args: Any) -> Any:
        """What the module returns."""
        with linear_by("onednn"):
            return self.module(*args)


def linear_by(products: Products) -> AbstractContextManager[object]:
    """A context in which `F.linear` is computed by this library."""
    return _OneDNN() if products == "onednn" else contextlib.nullcontext()


class _OneDNN(TorchFunctionMode):
    """While it is entered, `F.linear` is ours where it can be."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and not kwargs and _suits(*args):
            return _linear(*args)
        return func(*args, **(kwargs or {}))


def _suits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    return x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return onednn_product(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], len(weight))


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
