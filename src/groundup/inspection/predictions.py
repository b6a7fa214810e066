"""What a model expects at each position: its likeliest tokens, how unsure it is, and where what came ranks."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 64
"""Logits whose largest stands for all of them, while the likeliest of a large vocabulary are searched."""


@dataclass(frozen=True, slots=True)
class Predictions:
    """Of T positions, the first N of which are followed by a token that is known.

    Args:
        top: The likeliest tokens, likeliest first.
        top_probabilities: Theirs.
        entropy: How unsure the model is, in nats.
        rank: How many tokens it thought likelier than the one that came.
        loss: Negative log probability of the one that came, in nats.
    """

    top: Int[Tensor, "T K"]
    top_probabilities: Float[Tensor, "T K"]
    entropy: Float[Tensor, " T"]
    rank: Int[Tensor, " N"]
    loss: Float[Tensor, " N"]


@torch.no_grad()
def predictions(logits: Float[Tensor, "T V"], came: Int[Tensor, " N"], *, k: int = 5) -> Predictions:
    """Read logits, which are finite, in as few passes over the vocabulary as there can be.

    Args:
        logits: Of the model, in float32 or float64.
        came: The tokens that came at the first N <= T positions.
        k: Candidates to name.
    """
    largest, top = _largest(logits, min(k, logits.shape[1]))
    shares = logits.softmax(-1)  # (T, V)
    probabilities = shares.gather(1, top)
    total = largest[:, 0] - probabilities[:, 0].log()  # ln of the sum of all exponentials
    entropy = total - shares.mul_(logits).sum(-1)
    n = len(came)
    logit = logits[:n].gather(1, came[:, None])  # (N, 1)
    likelier = torch.gt(logits[:n], logit, out=shares[:n])  # ones and zeros: booleans sum four times slower
    return Predictions(
        top=top,
        top_probabilities=probabilities,
        entropy=entropy,
        rank=likelier.sum(-1).int(),
        loss=total[:n] - logit[:, 0],
    )


def _largest(logits: Float[Tensor, "T V"], k: int) -> tuple[Float[Tensor, "T k"], Int[Tensor, "T k"]]:
    """The k largest logits and their ids: they lie in the k blocks with the largest maxima, or behind all blocks."""
    n_blocks = logits.shape[1] // BLOCK
    if n_blocks < 8 * k:
        return logits.topk(k)
    n_inside = n_blocks * BLOCK
    blocks = logits[:, :n_inside].reshape(-1, n_blocks, BLOCK).amax(-1).topk(k).indices  # (T, k)
    inside = blocks[:, :, None] * BLOCK + torch.arange(BLOCK, device=logits.device)  # (T, k, BLOCK)
    behind = torch.arange(n_inside, logits.shape[1], device=logits.device).expand(len(logits), -1)
    places = torch.cat((inside.flatten(1), behind), dim=1)
    values, at = logits.gather(1, places).topk(k)
    return values, places.gather(1, at)
