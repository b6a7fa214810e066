"""The head of a model in training on a CPU: cross-entropy, and in bfloat16 what its weights get, by head.cpp."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.kernels.attention import TYPES
from groundup.runtime.matmul import OneDNNHead

if TYPE_CHECKING:
    from groundup.kernels.compiled import CompiledKernels


class CompiledHead(nn.Module):
    """A head whose loss the kernels compute.

    Args:
        kernels: The kernels.
        products: Multiplies what they do not; None is PyTorch.
    """

    def __init__(self, kernels: "CompiledKernels", products: OneDNNHead | None = None) -> None:
        super().__init__()
        self.products, self._kernels = products, kernels

    def forward(self, x: Float[Tensor, "*B C"], weight: Float[Tensor, "V C"]) -> Float[Tensor, "*B V"]:
        """Logits."""
        return F.linear(x, weight) if self.products is None else self.products(x, weight)

    def matrix(self, weight: Float[Tensor, "V C"]) -> Float[Tensor, "V C"]:
        """What x is multiplied with."""
        return weight

    def suits(self, logits: Float[Tensor, "N V"]) -> bool:
        """Whether the kernels compute the cross-entropy of these."""
        return logits.dtype in TYPES and logits.device.type == "cpu" and logits.is_contiguous()

    def cross_entropy(
        self, logits: Float[Tensor, "N V"], picked: Int[Tensor, "N 1"], *, back: bool
    ) -> Float[Tensor, "N 1"]:
        """-ln p of the picked, as `CompiledKernels.cross_entropy`."""
        return self._kernels.cross_entropy(logits, picked, back=back)

    def adds(self, grad: Float[Tensor, "N V"]) -> bool:
        """Whether the kernels add up what the weights get: in bfloat16, by a matrix unit."""
        return grad.dtype == torch.bfloat16 and grad.device.type == "cpu" and self._kernels.has_unit

    def add_gradient(
        self, total: Float[Tensor, "V C"] | None, grad: Float[Tensor, "N V"], x: Float[Tensor, "N C"]
    ) -> Float[Tensor, "V C"]:
        """`total + grad.T @ x` in float32, in place of a total, if there is one."""
        return self._kernels.add_narrow_gradient(total, grad, x)
