"""Activations on a CPU: GELU in its tanh form (Hendrycks & Gimpel 2016), and the squared ReLU (So et al. 2021).

GPT-2 was trained with `0.5 x (1 + tanh(z))`, which is `x sigmoid(2 z)`. PyTorch evaluates the tangent, on some CPUs for
a good part of a small model's step; a sigmoid costs one exponential, in a few passes of its operations or in one of the
kernels of gelu.cpp (docs/log.md measures them). GPUs and compiled code hide the tangent behind their memory traffic.

Of the squared ReLU the kernels of relu.cpp keep the output alone, which the product that reads it keeps anyway. PyTorch
keeps max(0, x) besides, and goes over memory four times on the way back, with three tensors of that size at once.
`model.swap` puts both into a model.
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


class CompiledReLUSquared(nn.Module):
    """max(0, x)^2 by kernels on a CPU in float32 and bfloat16, else by PyTorch.

    Args:
        kernels: Compute it.
    """

    def __init__(self, kernels: TrainingKernels) -> None:
        super().__init__()
        self._kernels = kernels

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Of every element."""
        known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
        if not known or torch.compiler.is_compiling():
            return F.relu(x).square()
        return _ReLUSquared.apply(x, self._kernels)  # type: ignore[no-untyped-call]


class _ReLUSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: TrainingKernels) -> Tensor:
        y = kernels.relu_squared(x)
        ctx.save_for_backward(y)
        ctx.kernels = kernels
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return ctx.kernels.relu_squared_backward(y, grad.to(y.dtype)), None
