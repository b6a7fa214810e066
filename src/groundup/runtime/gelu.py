"""GELU in its tanh form (Hendrycks & Gimpel 2016), the one GPT-2 was trained with.

`0.5 x (1 + tanh(z))` is `x sigmoid(2 z)`. PyTorch's CPU kernel evaluates the hyperbolic tangent, which takes a good
part of a small model's step; a sigmoid costs one exponential, and a few passes over data that sits in the cache are
faster than one pass of tangents (docs/log.md has the measurement). GPUs and compiled code have the tangent for free
behind their memory traffic, and keep PyTorch's function. `model.swap` puts it into a model.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

_CUBIC = 0.044715
_SLOPE = 2 * math.sqrt(2 / math.pi)


class SigmoidGELU(nn.Module):
    """Gaussian error linear unit, tanh form: a sigmoid on CPUs, PyTorch's function elsewhere and in compiled code."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """GELU of every element."""
        if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling():
            return _SigmoidGELU.apply(x)  # type: ignore[no-untyped-call]
        return F.gelu(x, approximate="tanh")


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
