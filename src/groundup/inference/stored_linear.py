"""Layers whose matrix is stored in 32, 16 or 8 bits. `use_weights` puts them into a model."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from groundup.inference.many_rows import multiply_many
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
        self._n_inputs: int | None = None
        """As `Stored` has it."""

    @property
    def stored(self) -> Stored:
        """The matrix as the kernels want it."""
        return self.arrange()

    def arrange(self, *, spend: bool = False) -> Stored:
        """Keep the weights in the order that the kernels want, as the first product does; spend: as `arranged`."""
        stored = self.kernels.arranged(self._kept(), spend=spend)
        if stored.weight is not self.weight:
            self.weight, self._n_inputs = nn.Parameter(stored.weight, requires_grad=False), stored.n_inputs
        return stored

    def product(self, x: Float[Tensor, "*B C"], bias: Float[Tensor, " D"] | None = None) -> Float[Tensor, "*B D"]:
        """X @ weight.T + bias."""
        rows = x.reshape(-1, x.shape[-1]).contiguous()
        if len(rows) > MAX_ROWS:
            y = multiply_many(self.kernels, rows, self.stored, bias)
        else:
            y = self.kernels.linear(rows, self.stored, bias)
        return y.view(*x.shape[:-1], -1)

    def _kept(self) -> Stored:
        """The matrix in the order that it lies in."""
        return Stored(self.weight, self.scale, self._n_inputs)

    def _apply(self, *args: Any, **kwargs: Any) -> "StoredMatrix":
        moved: StoredMatrix = super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        if self.scale is not None and self.scale.dtype != torch.float32:  # kernels would read them as what they are not
            raise TypeError(
                f"beside weights of 8 bits all is float32, not {self.scale.dtype}: convert the model before"
            )
        return moved

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:  # noqa: FBT001
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self._kept().unpacked()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        if self._n_inputs is not None:
            self.weight, self._n_inputs = nn.Parameter(self._kept().unpacked(), requires_grad=False), None
        super()._load_from_state_dict(*args, **kwargs)


class StoredLinear(StoredMatrix):
    """Replaces a linear layer."""

    def __init__(self, linear: nn.Linear, weights: Weights, kernels: PlainKernels) -> None:
        super().__init__(linear.weight, weights, kernels)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach(), requires_grad=False)

    def forward(self, x: Float[Tensor, "*B C"]) -> Float[Tensor, "*B D"]:
        """The product, plus the bias where there is one."""
        return self.product(x, self.bias)
