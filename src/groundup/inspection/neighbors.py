"""Which tokens the model keeps close together in its embedding: small models learn vowels, capitals, digits."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.inspection.matrices import matrix_of


@torch.no_grad()
def neighbors(model: Any, token: int, *, k: int = 10) -> tuple[Int[Tensor, " K"], Float[Tensor, " K"]]:
    """The k tokens whose rows of `wte` point most nearly the same way, nearest first, without the token itself.

    Args:
        model: A GPT-2 or a modern model.
        token: The id to start from.
        k: How many, at most all others.

    Returns:
        Ids, and the cosines of their angles to the token.
    """
    table = matrix_of(model.wte)
    lengths = table.norm(dim=1).clamp(min=1e-12)  # a row of zeros points nowhere
    cosines = (table @ table[token]) / (lengths * lengths[token])
    cosines[token] = -torch.inf
    nearest = cosines.topk(min(k, len(table) - 1))
    return nearest.indices, nearest.values
