"""An exponential moving average of the weights: less noisy than the weights after one step, and often better.

Where a small text is read many times, the average over the last steps is often a better model than the last step's
(Izmailov et al. 2018; Morales-Brotons et al. 2024). The average is evaluated and saved in place of the weights;
training itself continues from the weights.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

WARMUP = 10
"""The decay is smaller in the first steps, so that the random initial weights soon leave the average."""


class WeightAverage:
    """The exponential moving average of a model's weights.

    Args:
        model: The average begins as a copy of its weights, on the same device.
        decay: Share of the average that is kept at each step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self.decay = decay
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}
        """By the names of the model's parameters."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights; `step` is the number of steps made before this one."""
        decay = min(self.decay, (1 + step) / (WARMUP + step))
        torch._foreach_lerp_(list(self.weights.values()), list(self._parameters.values()), 1 - decay)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Take over an average that was saved."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within this context, the model's weights are the average."""
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
