"""The order in which the blocks of a dataset are read: a function of seed and epoch.

A sample is block_size + 1 consecutive tokens of one shard. In every epoch the samples tile each shard from another
offset, so that no token is predicted twice in an epoch and block borders move between epochs. The tokens at the two
ends of a shard that do not fill a block, fewer than two blocks, are left out of that epoch. An epoch visits
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
        tokens = np.array(self.shard_tokens)
        # A shard that can hold a sample must still hold one behind its offset.
        offsets = rng.integers(np.clip(tokens - self.block_size, 1, self.block_size))
        ends = np.cumsum(np.maximum(0, (tokens - 1 - offsets) // self.block_size))
        n_samples = int(ends[-1])
        windows = rng.permutation(-(-n_samples // self.window))
        sizes = np.minimum(self.window, n_samples - windows * self.window)
        return Epoch(self, number, offsets, ends, windows, np.cumsum(sizes))


@dataclass(frozen=True, slots=True)
class Epoch:
    """The order of one epoch."""

    order: Order
    number: int
    offsets: NDArray[np.int64]
    """Where the first sample of each shard begins."""
    ends: NDArray[np.int64]
    """Samples up to the end of each shard."""
    windows: NDArray[np.int64]
    """Windows in the order they are visited."""
    window_ends: NDArray[np.int64]
    """Samples up to the end of each of them, in that order."""

    def __len__(self) -> int:
        return int(self.ends[-1])

    def locate(self, start: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shard and first token of the samples at places [start, start + count) of the epoch."""
        end = start + count
        samples = []
        k = int(np.searchsorted(self.window_ends, start, side="right"))
        while start < end:
            window, stop = int(self.windows[k]), int(self.window_ends[k])
            size = min(self.order.window, len(self) - window * self.order.window)
            first = start - (stop - size)
            samples.append(self._permuted(window, size)[first : first + end - start])
            start, k = stop, k + 1
        numbers = np.concatenate(samples)
        shards = np.searchsorted(self.ends, numbers, side="right")
        first_of_shard = np.concatenate(([0], self.ends))[shards]
        return shards, self.offsets[shards] + (numbers - first_of_shard) * self.order.block_size

    def _permuted(self, window: int, size: int) -> NDArray[np.int64]:
        rng = np.random.default_rng((self.order.seed, self.number, window))
        return window * self.order.window + rng.permutation(size)
