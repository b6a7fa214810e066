"""How strange a model finds a text, token by token: from logits alone."""

from jaxtyping import Float, Int
from torch import Tensor

from groundup.inspection.predictions import Predictions, predictions


def surprise(logits: Float[Tensor, "T V"], idx: Int[Tensor, " T"], *, k: int = 5) -> Predictions:
    """Compare what came with what was expected: of every token but the first, which nothing comes before.

    Args:
        logits: Of the model on idx.
        idx: The text.
        k: Candidates to name.
    """
    return predictions(logits[:-1], idx[1:], k=k)
