"""Which library multiplies matrices on a CPU: PyTorch's default (MKL), or oneDNN where it is faster.

MKL keeps its AVX-512 kernels for Intel's processors. oneDNN has some for every processor, and on AMD's it runs GPT-2's
fp32 products twice as fast (docs/log.md). PyTorch uses it for 16 bits and compiled inference only, so it is called by
name here, in layers that `model.swap` puts into a model. Both compute in float32: results differ by rounding, as
between any two libraries.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.runtime.timing import seconds

Matmul = Literal["default", "onednn"]

MIN_SPEEDUP = 1.15
"""oneDNN must be measured this much faster before it is used."""
MIN_WIDTH_OF_DECODING, MIN_ROWS = 256, 64
"""Below both, calling oneDNN costs more than it saves when a few tokens are decoded."""


@functools.cache
def pick_matmul(device: torch.device, *, rows: int, n_embd: int, training: bool) -> Matmul:
    """Choose MKL or oneDNN for float32 matrix products by timing both, once per process.

    Args:
        device: Where it is computed; there is a choice on CPUs only.
        rows: Tokens at a time.
        n_embd: Width of the model.
        training: Forward and backward, or forward alone.
    """
    if not onednn_is_there(device) or (not training and rows < MIN_ROWS and n_embd < MIN_WIDTH_OF_DECODING):
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
        usual = min(seconds(partial(step, F.linear)) for _ in range(5))
        ours = min(seconds(partial(step, _linear)) for _ in range(5))
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


class OneDNNLinear(nn.Linear):
    """A linear layer whose products oneDNN computes, forward and backward, in float32 on the CPU.

    Args:
        linear: The layer it stands for; its tensors are taken over, not copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, input: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """The product, plus the bias where there is one."""
        return onednn_linear(input, self.weight, self.bias)


class OneDNNHead(nn.Module):
    """The head of a model whose product oneDNN computes."""

    def forward(self, x: Float[Tensor, "*B C"], weight: Float[Tensor, "V C"]) -> Float[Tensor, "*B V"]:
        """Logits."""
        return onednn_linear(x, weight)

    def matrix(self, weight: Float[Tensor, "V C"]) -> Float[Tensor, "V C"]:
        """What x is multiplied with."""
        return weight


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, by oneDNN where it can be: not in 16 bits, under autocast or in compiled code, which need no help."""
    narrow = x.dtype != torch.float32 or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    if narrow or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    return _linear(x, weight, bias)


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
