"""How strange a model finds a text, token by token: from logits alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
    logp = logits[:-1].log_softmax(-1)  # (T - 1, V)
    came = logp.gather(1, idx[1:, None])  # (T - 1, 1)
    likeliest = logp.topk(min(k, logp.shape[1]))
    return Surprise(
        loss=-came[:, 0],
        rank=(logp > came).sum(1),
        entropy=-(logp.exp() * logp).sum(1),
        top=likeliest.indices,
        top_probabilities=likeliest.values.exp(),
    )
