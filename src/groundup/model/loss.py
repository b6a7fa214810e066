"""The loss beside the model: cross-entropy of the next token, summed."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

IGNORE = -100
"""Targets of this value do not count."""


def lm_loss_sum(logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Sum of -ln p(target) over all targets that count, in float32 (or wider, as the logits are).

    A sum and not a mean, so that micro-steps and ranks add up to the mean over a whole step exactly.
    """
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum")


class LossModule(nn.Module):
    """A model and its loss as one module, so that torch.compile and data parallelism see one forward."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        """The summed loss."""
        return lm_loss_sum(self.model(idx), targets)
