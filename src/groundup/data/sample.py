"""Random documents out of shards, to look at what a model will read."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from groundup.data.dataset import TokenDataset
from groundup.data.shards import ShardReader
from groundup.formats.document import SplitName


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

    A document that two shards share is shown as the part that ends it.

    Args:
        dataset: Where from.
        split: Which half.
        count: How many; the same one may come twice.
        max_tokens: Length of the text shown.
        seed: The same seed draws the same documents.

    Raises:
        UserError: The split is not there, or a shard cannot be read.
    """
    tokenizer = dataset.tokenizer()
    shards = dataset.split(split).shards
    infos = [info for info in dataset.index.shards if info.split == split]
    draw = random.Random(seed)
    documents = [info.n_documents for info in infos]
    for _ in range(count):
        if any(documents) and tokenizer.eot_id is not None:
            k = draw.choices(range(len(infos)), weights=documents)[0]
            start, stop = _document(shards[k], tokenizer.eot_id, draw.randrange(documents[k]))
        else:
            k = draw.choices(range(len(infos)), weights=[info.n_tokens for info in infos])[0]
            start = draw.randrange(infos[k].n_tokens)
            stop = min(infos[k].n_tokens, start + max_tokens)
        ids = shards[k].read(start, min(stop - start, max_tokens))
        yield Passage(infos[k].file, start, stop - start, tokenizer.decode(ids.tolist()))


def _document(shard: ShardReader, eot_id: int, number: int) -> tuple[int, int]:
    """First id of a document, and the separator behind it; the separators of a shard are counted to find it."""
    ends = np.flatnonzero(shard.read(0, len(shard)) == eot_id)
    return (int(ends[number - 1]) + 1 if number else 0), int(ends[number])
