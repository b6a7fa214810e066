"""Noise in what a model reads, so that it cannot learn a small text by heart."""

import torch
from jaxtyping import Int
from torch import Tensor


def with_random_tokens(idx: Int[Tensor, "B T"], share: float, vocab_size: int) -> Int[Tensor, "B T"]:
    """Replace a share of the tokens by others, drawn from all ids alike; what is to be predicted stays.

    The numbers come from PyTorch's own generator of the device, as dropout's do, so that a checkpoint keeps them.

    Args:
        idx: Ids that a model is about to read.
        share: Chance of each to be replaced.
        vocab_size: Number of ids.
    """
    chosen = torch.rand(idx.shape, device=idx.device) < share
    return torch.where(chosen, torch.randint(vocab_size, idx.shape, device=idx.device), idx)
