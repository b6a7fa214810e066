"""What a layer multiplies, as numbers, however its matrix is stored."""

from jaxtyping import Float
from torch import Tensor, nn

from groundup.inference.stored_linear import StoredMatrix
from groundup.runtime.stored import inputs_for


def matrix_of(layer: nn.Module) -> Float[Tensor, "D C"]:
    """The weights of a linear layer or an embedding; those of 8 bits with their scales, as they multiply."""
    if isinstance(layer, StoredMatrix):
        return layer.stored.widened()
    weight: Tensor = layer.weight  # type: ignore[assignment]
    return weight


def inputs_of(layer: nn.Module, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """What a linear layer multiplies its matrix by; beside weights of 8 bits it is rounded."""
    return inputs_for(layer.stored, x) if isinstance(layer, StoredMatrix) else x
