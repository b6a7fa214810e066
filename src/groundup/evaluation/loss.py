"""Validation loss, and what it means in units that do not depend on the tokenizer."""

import contextlib
import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from groundup.config.data import IGNORE
from groundup.distributed.ranks import World
from groundup.model.types import evaluating


@dataclass(frozen=True, slots=True)
class LossResult:
    """Summed loss over counted tokens, and the bytes of text that those tokens spell."""

    nats: float
    """Sum of -ln p(token) over all predicted tokens."""
    n_tokens: int
    """Predicted tokens."""
    n_bytes: float
    """UTF-8 bytes those tokens stand for (in proportion, when a budget cut the split short)."""

    @property
    def loss(self) -> float:
        """Mean loss in nats per token."""
        return self.nats / self.n_tokens

    @property
    def perplexity(self) -> float:
        """exp(loss): the number of equally likely tokens the model hesitates between."""
        return perplexity(self.loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits to encode a byte of the text; comparable between tokenizers."""
        return self.nats / math.log(2) / self.n_bytes

    def as_json(self) -> dict[str, Any]:
        """Values for eval.json."""
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.n_tokens,
        }


def perplexity(nats: float) -> float:
    """exp(nats), bounded where a diverged model would make it more than a float holds."""
    return math.exp(min(nats, 700.0))


def evaluate_loss(
    loss_module: nn.Module,
    batches: Iterable[tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]],
    *,
    device: torch.device,
    bytes_per_token: float,
    autocast: AbstractContextManager[object] | None = None,
    world: World | None = None,
) -> LossResult:
    """Sum the loss over every target of `batches`.

    The result is deterministic: the same weights and batches give the same number. Blocks are read without
    overlap, so a token sees between 0 and block_size - 1 tokens before it, as in training.

    Args:
        loss_module: Maps (idx, targets) to the summed cross-entropy; targets of IGNORE do not count.
        batches: Pairs (idx, targets).
        device: Where the model lives.
        bytes_per_token: Mean UTF-8 bytes of a token of this split.
        autocast: Precision to compute in; none is the model's own.
        world: The ranks that each have a part of the batches; all get the result of the whole.
    """
    total = torch.zeros((), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    n_tokens = 0
    world = world or World()
    with torch.no_grad(), evaluating(loss_module), autocast or contextlib.nullcontext():
        for idx, targets in batches:
            n_tokens += int((targets != IGNORE).sum())
            total += loss_module(idx.to(device), targets.to(device))
    n_tokens = int(world.sum(torch.tensor(n_tokens)))
    return LossResult(nats=float(world.sum(total)), n_tokens=n_tokens, n_bytes=n_tokens * bytes_per_token)
