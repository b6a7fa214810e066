"""From logits to the next token, as pure functions applied in the order of `SamplingConfig`'s fields.

Penalty and temperature come before the filters, so that top-p sees the distribution that is drawn from.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.config.generate import SamplingConfig

Logits = Float[Tensor, "B V"]


def apply_repetition_penalty(logits: Logits, seen: Int[Tensor, "B S"], penalty: float) -> Logits:
    """Make tokens that were seen less likely: positive logits are divided, negative ones multiplied.

    Source: Keskar et al. 2019 (CTRL), section 4.1; the case of negative logits as in Hugging Face.
    """
    values = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(values > 0, values / penalty, values * penalty))


def apply_temperature(logits: Logits, temperature: float) -> Logits:
    """Sharpen (below 1) or flatten (above 1) the distribution."""
    return logits / temperature


def apply_top_k(logits: Logits, k: int) -> Logits:
    """Keep the k largest logits of a row, and those that equal the k-th; the others become -inf."""
    if not 0 < k < logits.shape[-1]:
        return logits
    smallest = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < smallest, -torch.inf)


def apply_top_p(logits: Logits, p: float) -> Logits:
    """Keep the smallest set of likeliest tokens with at least probability p; always at least one.

    Source: Holtzman et al. 2020, section 3.1.
    """
    if p >= 1:
        return logits
    ordered, index = logits.sort(descending=True, stable=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    dropped = before >= p
    dropped[:, 0] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(1, index, dropped), -torch.inf)


def sample(
    logits: Logits, config: SamplingConfig, seen: Int[Tensor, "B S"], generators: list[torch.Generator]
) -> Int[Tensor, " B"]:
    """Draw one token a row.

    Args:
        logits: Unnormalized log-probabilities.
        config: What is done to them; temperature 0 takes the largest (the first of equals).
        seen: Tokens so far, for the repetition penalty.
        generators: One a row, so that a row's text does not depend on how many rows there are.
    """
    logits = logits.float()
    if config.repetition_penalty != 1:
        logits = apply_repetition_penalty(logits, seen, config.repetition_penalty)
    if config.temperature == 0:
        return logits.argmax(-1)
    logits = apply_temperature(logits, config.temperature)
    if 0 < config.top_k < logits.shape[-1]:
        # Sorting and drawing among k candidates instead of the whole vocabulary.
        candidates, ids = logits.topk(config.top_k)
    else:
        candidates, ids = logits, None
    chosen = _draw(apply_top_p(candidates, config.top_p).softmax(-1), generators)
    return chosen if ids is None else ids.gather(1, chosen[:, None])[:, 0]


def _draw(probabilities: Float[Tensor, "B K"], generators: list[torch.Generator]) -> Int[Tensor, " B"]:
    """One index a row: where a uniform number falls in the running sum of the probabilities."""
    edges = probabilities.double().cumsum(-1)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64, device=g.device) for g in generators])
    wanted = uniform.to(edges.device) * edges[:, -1:]
    # The first edge above the number, so that a token of probability zero is never drawn.
    return torch.searchsorted(edges, wanted, right=True).clamp(max=probabilities.shape[-1] - 1)[:, 0]
