"""Merging words of any length: base64, DNA, or a million times the same character.

`ByteBPE.merge_word` looks through the whole word for every merge. Here the positions of every pair wait in a queue
under the pair's rank, and all occurrences of a pair are merged at once, as arrays: each position is touched a few
times, and the steps of Python are as many as there are different merges in the word. A merge only makes pairs of a
higher rank, for they hold its token, so a rank that has been dealt with never comes back.
"""

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


class LongWords:
    """Encodes long words by a list of merges.

    Args:
        merges: Pairs of ids, as in `ByteBPE`.
    """

    def __init__(self, merges: Sequence[tuple[int, int]]) -> None:
        self._pairs = np.array(merges, dtype=np.int64).reshape(-1, 2)
        self._none = 256 + len(merges)  # no token: the end of the word, and what a merge has swallowed
        keys = self._key(self._pairs[:, 0], self._pairs[:, 1])
        self._ranks = np.argsort(keys)
        self._keys = keys[self._ranks]

    def _key(self, left: Positions, right: Positions) -> Positions:
        return left * (self._none + 1) + right

    def merge(self, word: bytes) -> NDArray[np.int64]:
        """The ids of a word, the same as `ByteBPE.merge_word` gives."""
        if not len(self._pairs):
            return np.frombuffer(word, dtype=np.uint8).astype(np.int64)
        n = len(word)
        # Tokens as a linked list. The last entry is no token; it ends the list and, as index -1, begins it.
        ids = np.append(np.frombuffer(word, dtype=np.uint8), self._none).astype(np.int64)
        left, right = np.arange(-1, n), np.append(np.arange(1, n + 1), n)
        waiting: dict[int, list[Positions]] = {}
        queue: list[int] = []
        self._push(np.arange(n), ids, right, waiting, queue)
        while queue:
            rank = heapq.heappop(queue)
            a, b = self._pairs[rank]
            at = np.sort(np.concatenate(waiting.pop(rank)))
            at = at[(ids[at] == a) & (ids[right[at]] == b)]
            if a == b:
                at = _every_other(at, right)
            swallowed = right[at]
            ids[at], ids[swallowed] = 256 + rank, self._none
            right[at] = right[swallowed]
            left[right[at]] = at
            before = left[at]
            before = before[ids[before] != 256 + rank]  # the others are in `at` themselves
            self._push(np.concatenate([at, before]), ids, right, waiting, queue)
        return ids[ids != self._none]

    def _push(
        self, at: Positions, ids: Positions, right: Positions, waiting: dict[int, list[Positions]], queue: list[int]
    ) -> None:
        """File positions under the rank of the pair that begins there; most pairs have none."""
        keys = self._key(ids[at], ids[right[at]])
        found = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        known = self._keys[found] == keys
        at, ranks = at[known], self._ranks[found[known]]
        order = np.argsort(ranks, kind="stable")
        at, ranks = at[order], ranks[order]
        starts = np.flatnonzero(np.diff(ranks, prepend=-1))
        for rank, group in zip(ranks[starts].tolist(), np.split(at, starts[1:]), strict=False):
            if rank not in waiting:
                waiting[rank] = []
                heapq.heappush(queue, rank)
            waiting[rank].append(group)


def _every_other(at: Positions, right: Positions) -> Positions:
    """Of pairs that overlap, as in `aaaa`, the first, third, ... of each run: what going from left to right takes."""
    begins = np.ones(len(at), dtype=bool)
    begins[1:] = at[1:] != right[at[:-1]]
    place = np.arange(len(at))
    return at[(place - np.maximum.accumulate(np.where(begins, place, 0))) % 2 == 0]
