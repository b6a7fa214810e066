"""From logits to the next token: pure functions, applied in the order of `SamplingConfig`'s fields.

1. repetition penalty, on the model's own logits, the only ones whose sign means something;
2. presence and frequency penalty, 3. logit bias: what is subtracted and added;
4. temperature, so that the filters measure the distribution that is drawn from;
5. top-k, 6. top-p among what top-k left, 7. min-p;
8. one draw per row.

All filters keep every token whose logit reaches a threshold. Equal logits therefore stay or go together: what is
kept never depends on the order in which a sort happens to put them.

Every row has its own settings, its own random generator and its own past. The host waits for the device once: for
the tokens of all rows, with all that is reported about them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.generation.scores import Score, read_scores, score
from groundup.model.types import wide

Choose = Callable[[Tensor, SamplingConfig, Tensor | None], Tensor]
COLDEST, COLD = 1e-30, 1e-20
"""Temperatures below the first are 0. Dividing by them would overflow float32, and only exact ties could tell. Dividing
large logits, as a penalty for each of many tokens makes them, overflows below the second."""

FIRST_GUESSES = (64, 1024)
"""How many of the likeliest tokens top-p sorts on a CPU before it sorts them all: 50,257 logits take 3.6 ms to sort on
one core, the largest 64 take 0.06 ms. On a GPU the host would have to wait to see whether a guess was enough."""


@dataclass(kw_only=True)
class Row:
    """Whose next token is drawn.

    Args:
        config: What is done to the logits.
        generator: On the CPU, so that the tokens depend neither on the other rows nor on the device.
        prompt: The ids that were given.
        drawn: The ids since.
        n_top: How many of the model's likeliest tokens to tell with the drawn one; None tells nothing of the model.
    """

    config: SamplingConfig
    generator: torch.Generator
    prompt: Sequence[int] = ()
    drawn: list[int] = field(default_factory=list)
    n_top: int | None = None


class NoNumbersError(UserError):
    """Logits are NaN."""

    def __init__(self) -> None:
        super().__init__("the model's logits are not numbers (NaN): its weights are damaged, or its training diverged")


class Drawn(NamedTuple):
    """The next token of a row."""

    token: int
    score: Score | None
    """What the model thinks of it, where the row asks."""


def apply_repetition_penalty(
    logits: Float[Tensor, "B V"], seen: Bool[Tensor, "B V"], penalty: float
) -> Float[Tensor, "B V"]:
    """Make tokens that were seen less likely (more likely, if penalty < 1).

    Keskar et al. 2019 (CTRL, section 4.1) divide the logits of seen tokens. A negative logit would grow by that, so
    negative ones are multiplied. A token counts once, however often it was seen.
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def apply_count_penalties(
    logits: Float[Tensor, "B V"], counts: Int[Tensor, "B V"], presence: float, frequency: float
) -> Float[Tensor, "B V"]:
    """Subtract `presence` once from tokens that were drawn, and `frequency` each time they were."""
    return logits - presence * (counts > 0).to(logits.dtype) - frequency * counts.to(logits.dtype)


def apply_logit_bias(logits: Float[Tensor, "B V"], bias: Sequence[tuple[int, float]]) -> Float[Tensor, "B V"]:
    """Add to the logits of some ids."""
    ids = torch.tensor([token for token, _ in bias], dtype=torch.int64)
    values = torch.tensor([value for _, value in bias], dtype=logits.dtype)
    change = torch.zeros(logits.shape[-1], dtype=logits.dtype).index_add_(0, ids, values)
    return logits + change.to(logits.device, non_blocking=True)


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
    become -inf. 1 keeps all. Sums are of float64: in float32 the running sum of 50,257 probabilities is off by more
    than a rare token's share.
    """
    if p >= 1:
        return logits
    vocab_size = logits.shape[-1]
    log_total = logits.double().logsumexp(-1, keepdim=True)
    guesses = FIRST_GUESSES if logits.device.type == "cpu" else ()
    for k in (*guesses, vocab_size):
        largest = logits.topk(min(k, vocab_size)).values
        mass = (largest.double() - log_total).exp().cumsum(-1)
        if k >= vocab_size or bool((mass[:, -1] >= p).all()):
            break
    # The first place where the sum reaches p; the last one, should rounding keep the whole sum below p.
    last = (mass < p).sum(-1, keepdim=True).clamp(max=mass.shape[-1] - 1)
    return logits.masked_fill(logits < largest.gather(1, last), -torch.inf)


def apply_min_p(logits: Float[Tensor, "B V"], p: float) -> Float[Tensor, "B V"]:
    """Keep the tokens whose probability is at least p times the likeliest one's; the others become -inf. 0 keeps all.

    Nguyen et al. 2024, section 3.
    """
    if p <= 0:
        return logits
    probabilities = logits.softmax(-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(-1, keepdim=True), -torch.inf)


def check_bias(config: SamplingConfig, vocab_size: int) -> None:
    """Refuse a bias for a token that the model does not have.

    Raises:
        UsageError: With its id.
    """
    unknown = [token for token, _ in config.logit_bias if token >= vocab_size]
    if unknown:
        raise UsageError(f"logit-bias names token {unknown[0]}; the model's ids are 0 to {vocab_size - 1}")


def depends_on_logits_alone(config: SamplingConfig) -> bool:
    """Whether a token follows from its logits: neither from what was drawn before it nor from random numbers."""
    return config.temperature < COLDEST and not depends_on_past(config)


def depends_on_past(config: SamplingConfig) -> bool:
    """Whether what was drawn before changes the logits."""
    return bool(config.repetition_penalty != 1 or config.presence_penalty or config.frequency_penalty)


def is_plain(row: Row) -> bool:
    """Whether a row takes the logits as the model gives them, up to temperature, and tells nothing of them."""
    return row.n_top is None and not row.config.logit_bias and not depends_on_past(row.config)


def n_decisive(rows: Sequence[Row]) -> int:
    """How many of the largest logits of each row decide what is drawn; 0 where all of them do."""
    numbers = [(1 if row.config.temperature < COLDEST else row.config.top_k) if is_plain(row) else 0 for row in rows]
    return max(numbers) if all(numbers) else 0


def sample(logits: Float[Tensor, "B V"], rows: Sequence[Row], *, by: Choose | None = None) -> list[Drawn]:
    """Choose the next token of every row.

    Temperature 0 takes the largest logit, of equals the one with the lowest id.

    Args:
        logits: As the model gives them; 16 bits are taken as 32.
        rows: What is done to each, and who draws.
        by: Does what `choose` does, for logits on the CPU.

    Raises:
        NoNumbersError: The logits are not numbers.
    """
    if logits.device.type == "mps":  # no float64 there
        logits = logits.cpu()
    logits = wide(logits)
    groups: dict[SamplingConfig, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.config, []).append(place)
    if len(groups) == 1:
        ids = _choose(logits, rows[0].config, rows, by or choose)
    else:
        ids = torch.empty(len(rows), dtype=torch.long, device=logits.device)
        for config, places in groups.items():
            ids[places] = _choose(logits[places], config, [rows[place] for place in places], by or choose)
    n_top = max((row.n_top for row in rows if row.n_top is not None), default=None)
    if n_top is None:
        return read_drawn(ids)
    told = torch.cat((ids[:, None], score(logits, ids.clamp(min=0), n_top)), dim=1).tolist()  # ids fit into float64
    if any(values[0] < 0 for values in told):
        raise NoNumbersError
    return [
        Drawn(int(token), None if row.n_top is None else read_scores(values, row.n_top))
        for row, (token, *values) in zip(rows, told, strict=True)
    ]


def read_drawn(ids: Int[Tensor, " B"]) -> list[Drawn]:
    """Wait for the ids of `choose`.

    Raises:
        NoNumbersError: The logits were not numbers.
    """
    tokens = ids.tolist()
    if min(tokens) < 0:
        raise NoNumbersError
    return [Drawn(token, None) for token in tokens]


def choose(
    logits: Float[Tensor, "B V"], config: SamplingConfig, uniform: Float[Tensor, "B 1"] | None
) -> Int[Tensor, " B"]:
    """One id a row, by what comes from temperature on; -1 where the logits are not numbers.

    Args:
        logits: In float32 or float64.
        config: For all rows.
        uniform: What `uniform_numbers` gives.
    """
    if uniform is None:
        largest, ids = logits.max(-1)
        return ids.masked_fill(largest.isnan(), -1)
    logits = apply_top_k(apply_temperature(logits, config.temperature), config.top_k)
    logits = apply_top_p(logits, config.top_p)
    logits = apply_min_p(logits, config.min_p)
    return _draw((logits - logits.amax(-1, keepdim=True)).exp(), uniform)


def uniform_numbers(rows: Sequence[Row], device: torch.device) -> Float[Tensor, "B 1"] | None:
    """One random number a row, each by its own generator; None where temperature 0 needs none."""
    if rows[0].config.temperature < COLDEST:
        return None
    uniform = torch.stack([torch.rand(1, generator=row.generator, dtype=torch.float64) for row in rows])
    uniform.clamp_(min=2**-53)  # 0 would fall on the first token, however unlikely; these are multiples of that
    return uniform.to(device, non_blocking=True)  # else the host would wait for all that the device has to do


def _choose(logits: Float[Tensor, "B V"], config: SamplingConfig, rows: Sequence[Row], by: Choose) -> Int[Tensor, " B"]:
    """One id a row, all under the same settings; -1 where the logits are not numbers."""
    if config.repetition_penalty != 1:
        seen = _count([(*row.prompt, *row.drawn) for row in rows], logits) > 0
        logits = apply_repetition_penalty(logits, seen, config.repetition_penalty)
    if config.presence_penalty or config.frequency_penalty:
        counts = _count([row.drawn for row in rows], logits)
        logits = apply_count_penalties(logits, counts, config.presence_penalty, config.frequency_penalty)
    if config.logit_bias:
        logits = apply_logit_bias(logits, config.logit_bias)
    if COLDEST <= config.temperature < COLD:  # only the largest are drawn there, with or without this
        logits = logits - logits.amax(-1, keepdim=True)
    return by(logits, config, uniform_numbers(rows, logits.device))


def _count(texts: Sequence[Sequence[int]], logits: Float[Tensor, "B V"]) -> Int[Tensor, "B V"]:
    """How often each id of the vocabulary is in each text."""
    rows = torch.tensor([row for row, ids in enumerate(texts) for _ in ids], dtype=torch.long)
    ids = torch.tensor([token for ids in texts for token in ids], dtype=torch.long)
    counts = torch.zeros(logits.shape, dtype=torch.long, device=logits.device)
    place = (rows.to(logits.device), ids.to(logits.device))
    return counts.index_put_(place, torch.ones((), dtype=torch.long, device=logits.device), accumulate=True)


def _draw(probabilities: Float[Tensor, "B V"], uniform: Float[Tensor, "B 1"]) -> Int[Tensor, " B"]:
    """One index a row: where a uniform number falls in the running sum of the probabilities; -1 where that is NaN.

    They may have any sum: dividing by it would cost a GPU more than the draw. One random number a row where
    torch.multinomial takes one per token of the vocabulary: a tenth of its time.
    """
    edges = probabilities.cumsum(-1, dtype=torch.float64)
    total = edges[:, -1:]
    # The first edge strictly above the number belongs to a token of probability above zero.
    ids = torch.searchsorted(edges, uniform * total, right=True)[:, 0].clamp(max=edges.shape[-1] - 1)
    return ids.masked_fill(total[:, 0].isnan(), -1)
