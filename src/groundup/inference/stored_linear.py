"""Layers whose matrix is stored in 32, 16 or 8 bits. `use_weights` puts them into a model."""

from jaxtyping import Float
from torch import Tensor, nn

from groundup.kernels.many_rows import multiply_many
from groundup.runtime.stored import PlainKernels, Stored, Weights, store

MAX_ROWS = 32
"""With more rows, a product is bound by arithmetic and no longer by reading the weights."""


class StoredMatrix(nn.Module):
    """A matrix and, for 8 bits, the scale of each row, under the names that a linear layer or an embedding has.

    Args:
        weight: In float32; taken over where that is how it is to be stored.
        weights: How to store it.
        kernels: Multiply with it.
    """

    def __init__(self, weight: Float[Tensor, "D C"], weights: Weights, kernels: PlainKernels) -> None:
        super().__init__()
        stored = store(weight, weights)
        self.kernels = kernels
        self.weight = nn.Parameter(stored.weight, requires_grad=False)
        self.scale = None if stored.scale is None else nn.Parameter(stored.scale, requires_grad=False)

    @property
    def stored(self) -> Stored:
        """The matrix as the kernels take it."""
        return Stored(self.weight, self.scale)

    def product(self, x: Float[Tensor, "*B C"], bias: Float[Tensor, " D"] | None = None) -> Float[Tensor, "*B D"]:
        """X @ weight.T + bias."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        if len(rows) > MAX_ROWS:
            y = multiply_many(self.kernels, rows, self.stored, bias)
        else:
            y = self.kernels.linear(rows, self.stored, bias)
        return y.view(*x.shape[:-1], -1)


class StoredLinear(StoredMatrix):
    """Replaces a linear layer."""

    def __init__(self, linear: nn.Linear, weights: Weights, kernels: PlainKernels) -> None:
        super().__init__(linear.weight, weights, kernels)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """The product, plus the bias where there is one."""
        return self.product(x, self.bias)
