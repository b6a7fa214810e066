"""Two models on one text: which tokens one of them expects more than the other. From logits alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of one text, in nats.

    Args:
        loss: Of the first model, for every token but the first.
        other_loss: Of the second.
        divergence: Kullback-Leibler divergence of the second's distribution from the first's, after every token.
    """

    loss: Float[Tensor, " T-1"]
    other_loss: Float[Tensor, " T-1"]
    divergence: Float[Tensor, " T"]


@torch.no_grad()
def compare(logits: Float[Tensor, "T V"], other: Float[Tensor, "T V"], idx: Int[Tensor, " T"]) -> Comparison:
    """Compare what two models of one vocabulary say of a text.

    Args:
        logits: Of the first model.
        other: Of the second.
        idx: The text.
    """
    logp, other_logp = logits.log_softmax(-1), other.log_softmax(-1)
    return Comparison(
        loss=cross_entropy(logits[:-1], idx[1:], reduction="none"),
        other_loss=cross_entropy(other[:-1], idx[1:], reduction="none"),
        divergence=(logp.exp() * (logp - other_logp)).sum(-1),
    )
