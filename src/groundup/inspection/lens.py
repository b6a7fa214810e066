"""The logit lens (nostalgebraist 2020): what the model would say if it stopped after each layer.

Each state of the residual stream goes through the final norm and the head. Early rows are read with a norm and a head
that were trained for the last one, so they are a hint and not a measurement; the last row is the model's output.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.inspection.trace import Trace


@torch.no_grad()
def logit_lens(model: torch.nn.Module, seen: Trace) -> Float[Tensor, "L+1 T V"]:
    """Logits after the embedding and after each layer.

    Args:
        model: The one that was traced.
        seen: Its trace.
    """
    return torch.stack([*lens_rows(model, seen)])


@torch.no_grad()
def lens_rows(model: torch.nn.Module, seen: Trace) -> Iterator[Float[Tensor, "T V"]]:
    """The same, a row at a time: of a large vocabulary all rows are a great deal."""
    for two in torch.split(seen.residual[:-1], 2):  # a product of twice as many rows takes 1.4 times as long
        yield from model.logits(model.ln_f(two))  # type: ignore[operator]
    yield seen.logits  # as it is: a product of other sizes sums in another order
