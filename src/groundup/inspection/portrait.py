"""One line as a model sees it: how surprised it was by each token, and where one of its heads looks.

Small enough to stand in a report, as plain JSON.
"""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from groundup.inspection.detectors import head_scores, labels
from groundup.inspection.surprise import surprise
from groundup.inspection.trace import trace
from groundup.model.types import evaluating
from groundup.tokenizer.base import Tokenizer

MOST_TOKENS = 96
"""As many as a person reads: the attention of a line grows with its square."""


@torch.no_grad()
def portrait(model: Any, tokenizer: Tokenizer, idx: Int[Tensor, " T"]) -> dict[str, Any]:
    """Look at one text.

    Args:
        model: A GPT-2 or a modern model.
        tokenizer: What its ids are.
        idx: The text, two tokens at least; what is beyond the context or MOST_TOKENS is left out.

    Returns:
        `tokens` (texts), `surprise` (nats, None for the first), and of the head that has the clearest pattern `layer`,
        `head`, `kind` (None where the pattern is too weak for a name), and `attention`: row i has the weights of
        position i on the positions 0 to i.
    """
    idx = idx[: min(MOST_TOKENS, model.config.block_size)]
    with evaluating(model):
        seen = trace(model, idx)
        scores = head_scores(model)
    del scores["first"]  # a head at rest: nothing to see
    best = torch.stack(list(scores.values())).amax(0)
    layer, head = divmod(int(best.argmax()), best.shape[1])
    weights = seen.attention[layer, head]
    return {
        "tokens": [tokenizer.decode([int(i)]) for i in idx],
        "surprise": [None, *(round(float(loss), 3) for loss in surprise(seen.logits, idx).loss)],
        "layer": layer,
        "head": head,
        "kind": labels(scores)[layer][head],
        "attention": [[round(float(w), 3) for w in weights[i, : i + 1]] for i in range(len(idx))],
    }
