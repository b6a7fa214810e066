"""In which order the blocks of a dataset are learned from: by formula, from a seed and an epoch.

A sample is block_size + 1 consecutive tokens of one shard. In every epoch the samples tile each shard from another
offset, so that no token is predicted twice in an epoch and block borders still move between epochs. An epoch visits
windows of neighboring samples in random order, and the samples of a window in random order: nearly as random as a
full permutation, while reads stay close together on the disk.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 1 << 14
"""Samples per window: 32 MB of uint16 at block_size 1024."""


@dataclass(frozen=True, slots=True)
class Order:
    """The samples of one dataset, in the order of any epoch.

    Attributes:
        shard_tokens: Tokens of each shard.
        block_size: Tokens predicted per sample.
        seed: Of the order.
        window: Samples per window.
    """

    shard_tokens: tuple[int, ...]
    block_size: int
    seed: int
    window: int = WINDOW

    def epoch(self, number: int) -> "Epoch":
        """One pass over the data."""
        rng = np.random.default_rng((self.seed, number))
        # The shortest shard must still hold one sample behind the offset.
        slack = min(self.block_size, min(self.shard_tokens) - self.block_size)
        offset = int(rng.integers(slack)) if slack > 0 else 0
        counts = [max(0, (n - 1 - offset) // self.block_size) for n in self.shard_tokens]
        ends = np.cumsum(counts)
        n_windows = -(-int(ends[-1]) // self.window)
        return Epoch(self, number, offset, ends, rng.permutation(n_windows))


@dataclass(frozen=True, slots=True)
class Epoch:
    """The order of one epoch."""

    order: Order
    number: int
    offset: int
    ends: NDArray[np.int64]
    """Samples up to the end of each shard."""
    windows: NDArray[np.int64]
    """Windows in the order they are visited."""

    def __len__(self) -> int:
        return int(self.ends[-1])

    def locate(self, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shard and first token of the samples at places [start, start + count) of the epoch."""
        pieces = []
        at = 0
        for window in self.windows:
            size = min(self.order.window, len(self) - int(window) * self.order.window)
            low, high = max(start, at), min(start + count, at + size)
            if low < high:
                pieces.append(self._permuted(int(window), size)[low - at : high - at])
            at += size
            if at >= start + count:
                break
        samples = np.concatenate(pieces)
        shards = np.searchsorted(self.ends, samples, side="right")
        first_of_shard = np.concatenate(([0], self.ends))[shards]
        return shards, self.offset + (samples - first_of_shard) * self.order.block_size

    def _permuted(self, window: int, size: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self.order.seed, self.number, window))
        return window * self.order.window + rng.permutation(size)
