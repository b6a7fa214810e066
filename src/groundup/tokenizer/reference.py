"""Byte pair encoding as plain functions, without any speed: what `bpe_train.py` and `bpe.py` must compute.

A page to read first, and the oracle of the tests. Training takes the time of corpus times vocabulary, and encoding
looks for a pair from the beginning after every merge.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import regex

Pair = tuple[int, int]


def merge(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    """Replace a pair of neighbors by one new id wherever it stands, from left to right."""
    merged: list[int] = []
    for i in ids:
        if merged and (merged[-1], i) == pair:
            merged[-1] = new
        else:
            merged.append(i)
    return merged


def count(words: Mapping[bytes, int], rows: Mapping[bytes, Sequence[int]]) -> Counter[Pair]:
    """How often each pair of neighbors occurs; overlapping pairs all count.

    Args:
        words: Distinct words and how often each occurs.
        rows: The ids that each word consists of so far.
    """
    counts: Counter[Pair] = Counter()
    for word, times in words.items():
        for pair in pairwise(rows[word]):
            counts[pair] += times
    return counts


def train(words: Mapping[bytes, int], n_merges: int) -> list[Pair]:
    """Merge the most frequent pair into a new id, and repeat. Of equally frequent pairs, the smaller one comes first.

    Returns:
        The merges in order; the i-th makes id 256 + i. There are fewer than `n_merges` when no pair is left.
    """
    rows: dict[bytes, list[int]] = {word: list(word) for word in words}  # a word begins as its bytes, ids 0 to 255
    merges: list[Pair] = []
    while len(merges) < n_merges and (counts := count(words, rows)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        rows = {word: merge(row, best, 256 + len(merges)) for word, row in rows.items()}
        merges.append(best)
    return merges


def encode(text: str, merges: Sequence[Pair], pattern: str) -> list[int]:
    """Split text into words, then apply the merges to each word in the order in which they were learned.

    Args:
        text: Any text.
        merges: Pairs of ids; the i-th becomes id 256 + i.
        pattern: Regular expression of a word; what lies between its matches is a word as well.
    """
    ids: list[int] = []
    for word in filter(None, regex.splititer(f"({pattern})", text)):
        row = list(word.encode())
        for i, pair in enumerate(merges):
            row = merge(row, pair, 256 + i)
        ids += row
    return ids
