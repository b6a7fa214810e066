"""Dropout by counted numbers on a CPU: what is dropped follows from two seeds and a number's place, so no mask is kept.

PyTorch draws its masks there one number after the other on one core, and keeps them. `model.swap` puts ours into a
model; attention drops its weights in the same way.
"""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from groundup.kernels.training import TrainingKernels

NUMBERS = 1 << 32
"""A number is dropped where its own of so many is below a bound."""
Counted = tuple[int, int, int]
"""Two seeds and the bound."""


def count(p: float) -> Counted:
    """Two seeds from PyTorch's generator, which a run saves and recomputing sets back; none for a share of 0."""
    first, second = torch.randint(NUMBERS, (2,)).tolist() if p else (0, 0)
    return first, second, min(NUMBERS - 1, round(p * NUMBERS))


class CountedDropout(nn.Module):
    """Stands for `nn.Dropout`; PyTorch's function computes what is not in float32 or bfloat16 on a CPU.

    Args:
        p: The share that is dropped.
        kernels: Compute it.
    """

    def __init__(self, p: float, kernels: "TrainingKernels") -> None:
        super().__init__()
        self.p, self._kernels = p, kernels

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """In training, a share of the numbers is 0 and the others grow, so that the mean stays."""
        if not self.training:
            return x
        known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and 0 < self.p < 1
        if not known or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        return _Dropout.apply(x, count(self.p), self._kernels)  # type: ignore[no-untyped-call]


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counted: Counted, kernels: "TrainingKernels") -> Tensor:
        ctx.counted, ctx.kernels = counted, kernels
        return kernels.dropout(x, counted)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.kernels.dropout(grad, ctx.counted), None, None
