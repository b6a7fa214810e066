"""The logit lens (nostalgebraist 2020): what the model would say if it stopped after each layer.

Each state of the residual stream goes through the final norm and the head. Early rows are read with a norm and a head
that were trained for the last one, so they are a hint and not a measurement; the last row is the model's output.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.inspection.trace import Trace

ROWS = 256
"""Positions of all layers that go through the head together: a fifth faster than 64 on a CPU, and the logits of GPT-2's
vocabulary take 50 MB."""


@torch.no_grad()
def lens_rows(model: torch.nn.Module, seen: Trace) -> Iterator[Float[Tensor, "T V"]]:
    """Logits after the embedding and after each layer, one by one: of a large vocabulary all of them are a great deal.

    Args:
        model: The one that was traced.
        seen: Its trace.
    """
    for layers in torch.split(seen.residual[:-1], max(1, ROWS // len(seen.idx))):
        yield from model.logits(model.ln_f(layers))  # type: ignore[operator]
    yield seen.logits  # as it is: a product of other sizes sums in another order
