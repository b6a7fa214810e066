"""Noise in what a model reads, so that it learns less of a small text by heart."""

import torch
from jaxtyping import Int
from torch import Tensor


def with_random_tokens(idx: Int[Tensor, "B T"], share: float, vocab_size: int) -> Int[Tensor, "B T"]:
    """Replace a share of the tokens by random ones, uniform over all ids; the targets stay.

    The random numbers come from the device's global generator, as dropout's do, whose state is in each checkpoint.

    Args:
        idx: The input of the model.
        share: Probability of each to be replaced.
        vocab_size: Number of ids.
    """
    chosen = torch.rand(idx.shape, device=idx.device) < share
    return torch.where(chosen, torch.randint(vocab_size, idx.shape, device=idx.device), idx)
