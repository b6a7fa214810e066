"""The matrix of a layer as numbers, however it is stored."""

from jaxtyping import Float
from torch import Tensor, nn

from groundup.inference.stored_linear import StoredMatrix


def matrix_of(layer: nn.Module) -> Float[Tensor, "D C"]:
    """The weights of a linear layer or an embedding; those of 8 bits with their scales, as they multiply."""
    if isinstance(layer, StoredMatrix):
        return layer.stored.widened()
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight
