"""What kind of head is this? Four patterns that many models learn, each a score between 0 and 1.

Random tokens are shown twice in a row. Nothing can be known in the first half; in the second, everything that came
before can be found again by looking back. A head's score is the mean weight that falls on the stripe of its kind:

- previous: the token before;
- first: the first token of the text, where heads rest that have nothing to do;
- duplicate: the same token, one period ago;
- induction: the token after the same token, one period ago (Olsson et al. 2022): what comes next, if history repeats.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.inspection.trace import trace

HeadKind = Literal["previous", "first", "duplicate", "induction"]


def head_scores(model: Any, *, period: int = 0, texts: int = 4, seed: int = 0) -> dict[HeadKind, Float[Tensor, "L H"]]:
    """Scores of every head.

    Args:
        model: A GPT-2 or a modern model.
        period: Tokens before the repetition; 0 takes as many as the context allows, 64 at most.
        texts: Random texts to average over.
        seed: Which ones.
    """
    period = period or max(1, min(64, model.config.block_size // 2))
    generator = torch.Generator().manual_seed(seed)
    total: dict[HeadKind, Tensor] = {}
    for _ in range(texts):
        half = torch.randint(model.config.vocab_size, (period,), generator=generator)
        scores = stripe_scores(trace(model, torch.cat((half, half))).attention, period)
        total = {kind: total.get(kind, 0) + score / texts for kind, score in scores.items()}
    return total


def stripe_scores(attention: Float[Tensor, "L H T T"], period: int) -> dict[HeadKind, Float[Tensor, "L H"]]:
    """The mean weight on each stripe, over the positions that could look at it.

    Args:
        attention: Weights on a text of T = 2 period tokens, the second half the first again.
        period: The lag of the repetition.
    """
    T = attention.shape[-1]
    looks = torch.arange(T, device=attention.device)
    again = looks[period:]
    stripes: dict[HeadKind, tuple[Tensor, Tensor]] = {
        "previous": (looks[1:], looks[1:] - 1),
        "first": (looks[1:], torch.zeros_like(looks[1:])),
        "duplicate": (again, again - period),
        "induction": (again, again - period + 1),
    }
    return {kind: attention[..., rows, columns].mean(-1) for kind, (rows, columns) in stripes.items()}


def labels(scores: dict[HeadKind, Float[Tensor, "L H"]], *, least: float = 0.4) -> list[list[HeadKind | None]]:
    """For every layer and head the kind with the highest score, where that is `least` or more.

    Args:
        scores: Of `head_scores`, of all kinds or of some.
        least: Below this a head has no name.
    """
    kinds = list(scores)
    best = torch.stack([scores[kind] for kind in kinds]).max(0)
    return [
        [kinds[kind] if score >= least else None for kind, score in zip(row, values, strict=True)]
        for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
