"""How strange a model finds a text, token by token: from logits alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.inspection.predictions import predictions


@dataclass(frozen=True, slots=True)
class Surprise:
    """Of every token but the first, which nothing comes before.

    Args:
        loss: Negative log probability of the token that came, in nats.
        rank: How many tokens the model thought likelier.
        entropy: How unsure it was before the token came, in nats.
        top: The likeliest tokens, likeliest first.
        top_probabilities: Theirs.
    """

    loss: Float[Tensor, " T-1"]
    rank: Int[Tensor, " T-1"]
    entropy: Float[Tensor, " T-1"]
    top: Int[Tensor, "T-1 K"]
    top_probabilities: Float[Tensor, "T-1 K"]


@torch.no_grad()
def surprise(logits: Float[Tensor, "T V"], idx: Int[Tensor, " T"], *, k: int = 5) -> Surprise:
    """Compare what came with what was expected.

    Args:
        logits: Of the model on idx.
        idx: The text.
        k: Candidates to name.
    """
    found = predictions(logits[:-1], idx[1:], k=k)
    return Surprise(
        loss=found.loss,
        rank=found.rank,
        entropy=found.entropy,
        top=found.top,
        top_probabilities=found.probabilities,
    )
