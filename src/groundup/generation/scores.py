"""What the model itself thinks of a token: before penalties, temperature and filters, in nats."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Score(NamedTuple):
    """A token's place in the model's distribution."""

    logprob: float
    """ln p of the token."""
    entropy: float
    """Of the whole distribution."""
    top: tuple[tuple[int, float], ...]
    """The likeliest ids with ln p, in falling order. The token's own ln p is the same float here and there: it is
    among the likeliest exactly if `logprob` is at least the last value."""


def score(logits: Float[Tensor, "N V"], ids: Int[Tensor, " N"], n_top: int) -> Float[Tensor, "N 2+2K"]:
    """Score an id a row, on the device and without waiting for it; `read_scores` reads a row of the result.

    Args:
        logits: Of a model, in float32 or float64.
        ids: One a row.
        n_top: How many of the likeliest to tell (K), at most the whole vocabulary.

    Returns:
        ln p of the id, the entropy, K times ln p, K ids; in float64, which holds every float32 and every id.
    """
    logprobs = logits.log_softmax(-1)
    top = logprobs.topk(min(n_top, logits.shape[-1]))
    own = logprobs.gather(1, ids[:, None])
    entropy = torch.special.entr(logprobs.exp()).sum(-1, keepdim=True)
    return torch.cat((own.double(), entropy.double(), top.values.double(), top.indices.double()), dim=1)


def read_scores(values: Sequence[float], n_top: int) -> Score:
    """One row of `score`, on the host; of the likeliest it holds the first n_top are taken."""
    k = (len(values) - 2) // 2
    pairs = zip(map(int, values[2 + k :]), values[2 : 2 + k], strict=True)
    return Score(values[0], values[1], tuple(pairs)[:n_top])
