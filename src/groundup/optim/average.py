"""A moving average of the weights beside them: less noisy than any one step's, and often better.

Where a small text is read many times, the average of the last steps is a better model than the last one (Izmailov et
al. 2018; Morales-Brotons et al. 2024). It is evaluated and kept in place of the weights; training goes on from these.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

WARMUP = 10
"""The average of the first steps forgets faster, so that nothing of the random weights remains in it."""


class WeightAverage:
    """The exponential moving average of a model's weights.

    Args:
        model: Whose; the average begins as a copy of its weights, and lives where they live.
        decay: Share of the average that a step leaves.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self.decay = decay
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}
        """By the names of the model's parameters."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights, after so many steps."""
        decay = min(self.decay, (1 + step) / (WARMUP + step))
        torch._foreach_lerp_(list(self.weights.values()), list(self._parameters.values()), 1 - decay)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Take over an average that was saved."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """In this context the model has the average for weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, p in self._parameters.items():
            own = p.detach().clone()
            p.copy_(self.weights[name])
            self.weights[name].copy_(own)
