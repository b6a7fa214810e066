"""How likely given continuations of a context are: the one computation below every benchmark of this room.

A scorer that takes one question at a time repeats the context for each choice, pads all choices to the longest, and
computes logits for the context, too, which are not used. Here

- the context is computed once: its keys and values are copied to the rows of the choices (an exact saving: a token
  never sees what comes after it),
- questions of like contexts are read together, and their choices, sorted by length, go on together, so that little is
  padded; where contexts differ by a few tokens, each choice carries what is beyond the shortest,
- the head, a third of the work of GPT-2 124M, sees the tokens to be scored and no others.

A single continuation has nothing to share, so those rows are read whole, sorted by length. docs/log.md has the figures.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.config.model import BigramConfig
from groundup.model.kv_cache import KVCache
from groundup.model.types import LanguageModel, device_of, evaluating, wide

BATCH_TOKENS = {"cpu": 512, "cuda": 16_384, "mps": 4_096}
"""Tokens of a forward pass by device: processors of few cores want little padding, GPUs much work at once."""
HEAD_BYTES = {"cpu": 1 << 25, "cuda": 1 << 30}
"""Size of the logits in memory at once, in float32: on a CPU, what stays in its cache."""
SPREAD = 4
"""Most tokens by which contexts that are read together may differ: each choice computes them again."""


@dataclass(frozen=True, slots=True)
class Question:
    """A context and the continuations to score."""

    context: Sequence[int]
    """At least one id."""
    continuations: Sequence[Sequence[int]]
    """At least one id each."""


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """How well a model predicted one continuation."""

    logprob: float
    """Sum of ln p(token)."""
    n_tokens: int
    """Tokens in that sum."""
    greedy: bool
    """Whether each of them was the most likely one: what decoding without chance would have said."""

    @property
    def mean(self) -> float:
        """Mean of ln p(token)."""
        return self.logprob / self.n_tokens


@dataclass(frozen=True, slots=True)
class _Group:
    """Continuations of one context, all of them short enough for the model."""

    context: Sequence[int]
    continuations: Sequence[Sequence[int]]
    places: Sequence[tuple[int, int]]
    """(question, choice) of each continuation."""

    @property
    def n_tokens(self) -> int:
        """Tokens to read."""
        return len(self.context) + sum(map(len, self.continuations))

    @property
    def shared(self) -> int:
        """Tokens to compute once: all but the last of the context, whose logits each choice needs."""
        return len(self.context) - 1 if len(self.continuations) > 1 else 0


@dataclass(frozen=True, slots=True)
class _Row:
    """One continuation, after the tokens that the cache holds."""

    owner: int
    """Row of the cache."""
    inputs: Sequence[int]
    targets: Sequence[int]
    """What the last of the inputs are followed by."""
    place: tuple[int, int]


def log_likelihoods(
    model: LanguageModel,
    questions: Sequence[Question],
    *,
    batch_tokens: int = 0,
    progress: Callable[[float], None] = lambda _: None,
) -> list[list[LogLikelihood]]:
    """Score every continuation of every question.

    A context and continuation that are longer than the model's context are cut from the left, so that the last
    block_size + 1 tokens remain: the beginning of the context goes first, and of a continuation of more than block_size
    tokens only the last block_size are scored.

    Args:
        model: Put into evaluation mode while it scores, and back after.
        questions: What to score.
        batch_tokens: Tokens per forward pass; 0 takes what suits the device.
        progress: Called after each batch with the share of the tokens that has been read.

    Returns:
        The scores of each question, in the order of its continuations. They do not depend on what else is scored (up to
        rounding: products of differently sized batches differ in their last bits).

    Raises:
        ValueError: A context or a continuation is empty.
    """
    scores: list[list[LogLikelihood | None]] = [[None] * len(question.continuations) for question in questions]
    # A bigram reads texts of any length: its context is one token wherever it stands.
    groups = _groups(questions, sys.maxsize - 1 if isinstance(model.config, BigramConfig) else model.config.block_size)
    device = device_of(model)
    batch_tokens = batch_tokens or BATCH_TOKENS[device.type]
    done, n_tokens = 0, sum(group.n_tokens for group in groups)
    with torch.no_grad(), evaluating(model):
        for batch in _batches(groups, batch_tokens):
            for (question, choice), result in _score_batch(model, batch, batch_tokens):
                scores[question][choice] = result
            done += sum(group.n_tokens for group in batch)
            progress(done / n_tokens)
    return scores  # type: ignore[return-value]  # every place was filled


def _groups(questions: Sequence[Question], block_size: int) -> list[_Group]:
    groups = []
    for number, question in enumerate(questions):
        if not question.context or not all(question.continuations):
            raise ValueError(f"question {number} has an empty context or continuation")
        places = [(number, choice) for choice in range(len(question.continuations))]
        if len(question.context) + max(map(len, question.continuations)) <= block_size + 1:
            groups.append(_Group(question.context, question.continuations, places))
            continue
        for place, continuation in zip(places, question.continuations, strict=True):
            kept = [*question.context, *continuation][-block_size - 1 :]
            n_targets = min(len(continuation), len(kept) - 1)
            groups.append(_Group(kept[:-n_targets], [kept[-n_targets:]], [place]))
    return groups


def _batches(groups: list[_Group], batch_tokens: int) -> Iterator[list[_Group]]:
    """Groups whose contexts are read together: about equally long, and no more of them than a forward pass takes."""
    batch: list[_Group] = []
    tokens = 0
    for group in sorted(groups, key=lambda g: (g.shared, len(g.context))):
        size = group.shared or len(group.context) + len(group.continuations[0])
        if batch and (tokens + size > batch_tokens or group.shared > batch[0].shared + SPREAD):
            yield batch
            batch, tokens = [], 0
        batch.append(group)
        tokens += size
    if batch:
        yield batch


def _score_batch(
    model: LanguageModel, batch: list[_Group], batch_tokens: int
) -> Iterator[tuple[tuple[int, int], LogLikelihood]]:
    shared = batch[0].shared
    device = device_of(model)
    cache = None
    if shared:
        cache = model.new_cache(len(batch), shared)
        model.hidden(torch.tensor([group.context[:shared] for group in batch], device=device), cache=cache)
    rows = [
        _Row(owner, [*group.context[shared:], *continuation[:-1]], continuation, place)
        for owner, group in enumerate(batch)
        for continuation, place in zip(group.continuations, group.places, strict=True)
    ]
    rows.sort(key=lambda row: len(row.inputs))
    start = 0
    while start < len(rows):
        stop = start + 1
        while stop < len(rows) and (stop + 1 - start) * len(rows[stop].inputs) <= batch_tokens:
            stop += 1
        part = rows[start:stop]
        yield from zip((row.place for row in part), _score_rows(model, part, cache), strict=True)
        start = stop


def _score_rows(model: LanguageModel, rows: Sequence[_Row], cache: KVCache | None) -> list[LogLikelihood]:
    """Read rows together, padded behind to the longest: nothing that counts sees the padding."""
    device = device_of(model)
    width = max(len(row.inputs) for row in rows)
    idx = torch.tensor([[*row.inputs, *[0] * (width - len(row.inputs))] for row in rows], device=device)
    if cache is not None:
        cache = cache.gather([row.owner for row in rows], max_tokens=cache.length + width)
    hidden = model.hidden(idx, cache=cache)
    places = [
        number * width + place
        for number, row in enumerate(rows)
        for place in range(len(row.inputs) - len(row.targets), len(row.inputs))
    ]
    targets = torch.tensor([target for row in rows for target in row.targets], device=device)
    logprobs, greedy = _logprobs(model, hidden.flatten(0, 1)[torch.tensor(places, device=device)], targets)
    sizes = [len(row.targets) for row in rows]
    return [
        LogLikelihood(float(part.sum()), len(part), bool(best.all()))
        for part, best in zip(
            torch.split(logprobs.cpu().double(), sizes), torch.split(greedy.cpu(), sizes), strict=True
        )
    ]


def _logprobs(
    model: LanguageModel, hidden: Float[Tensor, "N C"], targets: Int[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """Ln p of each target, and whether it was the most likely token."""
    device = hidden.device.type
    vocab_size = model.config.vocab_size
    chunk = max(1, HEAD_BYTES.get(device, 1 << 27) // (4 * vocab_size))
    logprobs, greedy = [], []
    for x, target in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
        logits = wide(model.logits(x))
        logprobs.append(-F.cross_entropy(logits, target, reduction="none"))
        greedy.append(_predicted(logits, target))
    return torch.cat(logprobs), torch.cat(greedy)


def _predicted(logits: Float[Tensor, "N V"], targets: Int[Tensor, " N"]) -> Bool[Tensor, " N"]:
    """`logits.argmax(-1) == targets`, for less: few targets are as likely as any token, and only those need argmax."""
    largest = logits.gather(-1, targets[:, None]).squeeze(-1) >= logits.amax(-1)
    largest[largest.clone()] = logits[largest].argmax(-1) == targets[largest]
    return largest
