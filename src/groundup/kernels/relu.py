"""The squared ReLU (So et al. 2021) by the kernels of relu.cpp, which keep its output alone for the backward pass.

The product that reads the output keeps it anyway. PyTorch keeps max(0, x) besides, and goes over memory four times on
the way back, with three tensors of that size at once. `model.swap` puts it into a model.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from groundup.kernels.training import TrainingKernels


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
