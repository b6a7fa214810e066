"""From logits to the next token: pure functions, applied in the order of `SamplingConfig`'s fields.

1. repetition penalty, on the model's own logits, the only ones whose sign means something;
2. temperature, so that top-p measures the distribution that is drawn from;
3. top-k, then 4. top-p among what top-k left;
5. one draw a row.

Both filters keep every token whose logit reaches a threshold. Equal logits therefore stay or go together: what is
kept never depends on the order in which a sort happens to put them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig

COLDEST = 1e-30
"""Temperatures below this are 0. Dividing by them would overflow float32, and only exact ties could tell."""

FIRST_GUESSES = (64, 1024)
"""How many of the likeliest tokens top-p sorts before it sorts them all: 50,257 logits take 3.6 ms to sort on one
CPU core, the largest 64 take 0.06 ms."""


def apply_repetition_penalty(
    logits: Float[Tensor, "B V"], seen: Int[Tensor, "B S"], penalty: float
) -> Float[Tensor, "B V"]:
    """Make tokens that were seen less likely (more likely, if penalty < 1).

    Keskar et al. 2019 (CTRL, section 4.1) divide the logits of seen tokens. A negative logit would grow by that, so
    negative ones are multiplied. A token counts once, however often it was seen.
    """
    scores = logits.gather(1, seen)
    return logits.scatter(1, seen, torch.where(scores > 0, scores / penalty, scores * penalty))


def apply_temperature(logits: Float[Tensor, "B V"], temperature: float) -> Float[Tensor, "B V"]:
    """Sharpen (temperature < 1) or flatten (> 1) the distribution; temperature is above 0."""
    return logits / temperature


def apply_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """Keep the k largest logits of a row and those equal to the k-th; the others become -inf. 0 keeps all."""
    if not 0 < k < logits.shape[-1]:
        return logits
    threshold = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < threshold, -torch.inf)


def apply_top_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep the smallest set of likeliest tokens with at least probability p, always one or more.

    Holtzman et al. 2020, section 3.1. Tokens as likely as the last one of the set are kept with it; the others
    become -inf. 1 keeps all.
    """
    if p >= 1:
        return logits
    vocab_size = logits.shape[-1]
    log_total = logits.logsumexp(-1, keepdim=True)
    for k in (*FIRST_GUESSES, vocab_size):
        largest = logits.topk(min(k, vocab_size)).values
        mass = (largest - log_total).exp().cumsum(-1)
        if k >= vocab_size or bool((mass[:, -1] >= p).all()):
            break
    # The first place where the sum reaches p; the last one, should rounding keep the whole sum below p.
    last = (mass < p).sum(-1, keepdim=True).clamp(max=mass.shape[-1] - 1)
    return logits.masked_fill(logits < largest.gather(1, last), -torch.inf)


def sample(
    logits: Float[Tensor, "B V"],
    config: SamplingConfig,
    generators: Sequence[torch.Generator],
    seen: Int[Tensor, "B S"],
) -> Int[Tensor, " B"]:
    """Choose the next token of every row.

    Args:
        logits: As the model gives them.
        config: What is done to them; temperature 0 takes the largest, of equals the one with the lowest id.
        generators: One a row, on the CPU, so that a row's tokens depend neither on the other rows nor on the device.
        seen: The tokens of every row so far, for the repetition penalty.

    Raises:
        UserError: The logits are not numbers.
    """
    logits = logits.float()
    if config.repetition_penalty != 1:
        logits = apply_repetition_penalty(logits, seen, config.repetition_penalty)
    if config.temperature < COLDEST:
        largest, ids = logits.max(-1)
        _check_numbers(largest)
        return ids
    logits = apply_temperature(logits, config.temperature)
    logits = apply_top_k(logits, config.top_k)
    logits = apply_top_p(logits, config.top_p)
    return _draw(logits.softmax(-1), generators)


def _draw(probabilities: Float[Tensor, "B V"], generators: Sequence[torch.Generator]) -> Int[Tensor, " B"]:
    """One index a row: where a uniform number falls in the running sum of the probabilities.

    One random number a row where torch.multinomial takes one per token of the vocabulary: a tenth of its time.
    """
    device = probabilities.device
    if device.type == "mps":  # no float64 there
        probabilities = probabilities.cpu()
    edges = probabilities.cumsum(-1, dtype=torch.float64)
    total = edges[:, -1:]
    _check_numbers(total)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators]).to(edges.device)
    # The first edge strictly above the number belongs to a token of probability above zero.
    ids = torch.searchsorted(edges, uniform * total, right=True)[:, 0]
    return ids.clamp(max=edges.shape[-1] - 1).to(device)


def _check_numbers(values: Tensor) -> None:
    if bool(values.isnan().any()):
        raise UserError("the model's logits are not numbers (NaN): its weights are damaged, or its training diverged")
