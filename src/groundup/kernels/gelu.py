"""GELU in its tanh form (Hendrycks & Gimpel 2016), the one GPT-2 was trained with.

`0.5 x (1 + tanh(z))` is `x sigmoid(2 z)`. PyTorch's CPU kernel evaluates the hyperbolic tangent, which takes a good
part of a small model's step on some CPUs; a sigmoid costs one exponential, in a few passes of PyTorch's operations or,
several times as fast, in one pass of the kernels of gelu.cpp (docs/log.md has the measurements). GPUs and compiled code
have the tangent for free behind their memory traffic, and keep PyTorch's function. `model.swap` puts it into a model.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.kernels.training import TrainingKernels

_CUBIC = 0.044715
_SLOPE = 2 * math.sqrt(2 / math.pi)


class SigmoidGELU(nn.Module):
    """Gaussian error linear unit, tanh form: a sigmoid on CPUs, PyTorch's function elsewhere and in compiled code.

    Args:
        kernels: Compute it for float32 and bfloat16, where there are some.
    """

    def __init__(self, kernels: TrainingKernels | None = None) -> None:
        super().__init__()
        self._kernels = kernels

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """GELU of every element."""
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            if self._kernels is not None and x.dtype in (torch.float32, torch.bfloat16):
                return _CompiledGELU.apply(x, self._kernels)  # type: ignore[no-untyped-call]
            if x.dtype in (torch.float32, torch.float64):
                return _SigmoidGELU.apply(x)  # type: ignore[no-untyped-call]
        return F.gelu(x, approximate="tanh")


class _CompiledGELU(torch.autograd.Function):
    """The kernels keep x alone for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: TrainingKernels) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kernels = kernels
        return kernels.gelu(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return ctx.kernels.gelu_backward(x, grad), None


class _SigmoidGELU(torch.autograd.Function):
    """x s with s = sigmoid(slope (x + cubic x^3)); x and s are kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        square = x * x
        s = torch.addcmul(x, square, x, value=_CUBIC, out=square).mul_(_SLOPE).sigmoid_()
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, s = ctx.saved_tensors
        # d(x s)/dx = s + x s' (slope (1 + 3 cubic x^2)), with s' = s (1 - s)
        inner = x * x
        torch.addcmul(x, inner, x, value=3 * _CUBIC, out=inner)
        torch.ops.aten.sigmoid_backward.grad_input(inner, s, grad_input=inner)
        return inner.mul_(_SLOPE).add_(s).mul_(grad)
