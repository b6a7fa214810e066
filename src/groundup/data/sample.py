"""Random documents, to see what a model will read: from shards, or from text before it is prepared."""

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from groundup.corpora.source import Source, read_all
from groundup.data.dataset import TokenDataset
from groundup.data.shards import ShardReader
from groundup.formats.document import Document, SplitName


@dataclass(frozen=True, slots=True)
class Passage:
    """A document, or a piece of text where the tokenizer separates no documents."""

    file: str
    start: int
    """Position of its first id in the shard."""
    n_tokens: int
    """Ids of the whole document in this shard."""
    text: str
    """Its beginning."""


def sample_documents(
    dataset: TokenDataset, split: SplitName, *, count: int, max_tokens: int, seed: int
) -> Iterator[Passage]:
    """Draw documents, each as likely as any other.

    Args:
        dataset: To draw from.
        split: train or val.
        count: How many at most; no document comes twice.
        max_tokens: Length of the text shown.
        seed: The same seed draws the same documents.

    Raises:
        UserError: The split is not there, or a shard cannot be read.
    """
    tokenizer = dataset.tokenizer()
    shards = dataset.split(split).shards
    infos = [info for info in dataset.index.shards if info.split == split]
    draw = random.Random(seed)
    ends = list(accumulate(info.n_documents for info in infos))
    separated = tokenizer.eot_id is not None and ends[-1] > 0
    for number in draw.sample(range(ends[-1]), min(count, ends[-1])) if separated else [0] * count:
        if separated and tokenizer.eot_id is not None:
            k = bisect_right(ends, number)
            ranges = _document(shards, k, tokenizer.eot_id, number - ends[k] + infos[k].n_documents)
        else:
            k = draw.choices(range(len(infos)), weights=[info.n_tokens for info in infos])[0]
            start = draw.randrange(infos[k].n_tokens)
            ranges = [(k, start, min(infos[k].n_tokens, start + max_tokens))]
        n_tokens = sum(stop - start for _, start, stop in ranges)
        ids = np.concatenate([shards[k].read(start, min(stop - start, max_tokens)) for k, start, stop in ranges])
        first, start, _ = ranges[0]
        yield Passage(infos[first].file, start, n_tokens, tokenizer.decode(ids[:max_tokens].tolist()))


def _document(shards: Sequence[ShardReader], k: int, eot_id: int, number: int) -> list[tuple[int, int, int]]:
    """(shard, first id, end) of each part of a document: it may begin in a shard before the one in which it ends."""
    ends = np.flatnonzero(shards[k].read(0, len(shards[k])) == eot_id)
    end = int(ends[number]) if number < len(ends) else len(shards[k])  # of the one whose end is held out
    ranges = [(k, int(ends[number - 1]) + 1 if number else 0, end)]
    while k and not ranges[0][1] and not (number and ranges[0][0] == k):
        k -= 1
        before = np.flatnonzero(shards[k].read(0, len(shards[k])) == eot_id)
        start = int(before[-1]) + 1 if len(before) else 0
        if start == len(shards[k]):
            break
        ranges.insert(0, (k, start, len(shards[k])))
    return ranges


def sample_source(
    source: Source,
    skipped: dict[str, int],
    *,
    count: int,
    seed: int,
    progress: Callable[[int, int], None] = lambda documents, characters: None,
) -> list[tuple[int, Document]]:
    """Draw documents of a source, each as likely as any other, without preparing it.

    Args:
        source: Read to its end.
        skipped: Records that cannot be used are counted here by reason.
        count: How many at most; none comes twice.
        seed: The same seed draws the same documents.
        progress: Called with how many documents were read, and the characters in them.

    Returns:
        (number from 0, document) in the order of the source; of a document that is read in pieces, the first piece.

    Raises:
        UnreadableError: Some of it cannot be read.
    """
    draw = random.Random(seed)
    drawn: list[tuple[int, Document]] = []
    n, begins = 0, True
    for _, document in read_all(source, source.parts(), skipped, progress):
        if begins:
            # Each of n documents is kept with probability count / n (Vitter's algorithm R).
            place = n if n < count else draw.randrange(n + 1)
            if place < count:
                drawn[place : place + 1] = [(n, document)]
            n += 1
        begins = document.ends
    return sorted(drawn, key=lambda numbered: numbered[0])
