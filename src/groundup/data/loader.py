"""Batches by position.

The samples of a run are one endless stream, epoch after epoch. Each micro-step takes the next micro_batch_size x
world_size samples, of which rank r gets the r-th slice. So the samples of a step do not depend on the number of ranks,
and the position of a run is one integer.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from groundup.config.data import IGNORE
from groundup.config.errors import UserError
from groundup.config.printable import counted
from groundup.data.dataset import Split
from groundup.data.order import Epoch, Order

IN_MEMORY_BYTES = 256 << 20
"""Splits up to this size are held in memory unless the loader is given another size."""
AHEAD = 1 << 10
"""Samples whose places are computed together."""


class TrainBatches:
    """An endless stream of training batches.

    Args:
        split: Where tokens come from.
        block_size: Tokens per sequence (T).
        micro_batch_size: Sequences per batch on one rank (B).
        seed: Of the order.
        rank: Of this process.
        world_size: Processes that share the stream.
        pin_memory: Put batches into pinned memory, from which a CUDA device copies while the CPU works.
        in_memory_bytes: Splits up to this size are held in memory, and a batch is one indexing operation.

    Raises:
        UserError: The split is too short for one sample.
    """

    def __init__(
        self,
        split: Split,
        *,
        block_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        in_memory_bytes: int = IN_MEMORY_BYTES,
    ) -> None:
        longest = max(len(shard) for shard in split.shards)
        if longest <= block_size:
            several = f"the longest of {len(split.shards)} shards of " if len(split.shards) > 1 else ""
            raise UserError(
                f"{several}the training split has {counted(longest, 'token')}, too few for one block of {block_size}"
                " and the token after it; use more text or a smaller model.block_size"
            )
        self.split, self.block_size, self.micro_batch_size = split, block_size, micro_batch_size
        self.rank, self.world_size, self._pin_memory = rank, world_size, pin_memory
        self.consumed = 0
        """Samples returned so far, over all ranks, without a batch that is only prefetched."""
        usable = tuple(len(shard) for shard in split.shards)
        self._order = Order(usable, block_size, seed)
        self._epoch: Epoch = self._order.epoch(0)
        self._epoch_start = 0
        self._tokens = _Tokens(split, block_size + 1, in_memory_bytes)
        self._ahead: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None
        self._fetched: tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]] | None = None

    def next_batch(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        """The next B sequences of this rank, and what follows each of their tokens."""
        batch = self._fetched or self._fetch()
        self._fetched = None
        self.consumed += self.micro_batch_size * self.world_size
        return batch

    def fetch_ahead(self) -> None:
        """Prefetch what `next_batch` will return; the position in the stream does not change."""
        self._fetched = self._fetched or self._fetch()

    def _fetch(self) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
        first = self.consumed + self.rank * self.micro_batch_size
        shards, starts = self._locate(first, self.micro_batch_size)
        rows = torch.from_numpy(self._tokens.gather(shards, starts))
        idx, targets = rows[:, :-1], rows[:, 1:]
        if self._pin_memory:  # only what is contiguous is copied without waiting
            return idx.contiguous().pin_memory(), targets.contiguous().pin_memory()
        return idx, targets

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream, and the fingerprint of the data."""
        return {
            "consumed": self.consumed,
            "block_size": self.block_size,
            "seed": self._order.seed,
            "fingerprint": self.split.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any], *, allow_data_change: bool = False) -> None:
        """Go to a saved position, whatever the number of ranks it was saved with.

        Args:
            state: What `state_dict` returned.
            allow_data_change: If the data is another, go to the same number of samples.

        Raises:
            UserError: It was a stream of other data, or of blocks of another size.
        """
        if state["block_size"] != self.block_size:
            raise UserError(
                f"the place in the data was counted in blocks of {state['block_size']} tokens, not of {self.block_size}"
            )
        if state["fingerprint"] != self.split.fingerprint and not allow_data_change:
            raise UserError(
                "the data is not what this run was trained on: its fingerprint is"
                f" {self.split.fingerprint[:12]} instead of {state['fingerprint'][:12]};"
                " --allow-data-change goes on with it at the same number of samples;"
                " a run of its own needs another --name"
            )
        self._order = Order(self._order.shard_tokens, self.block_size, state["seed"])
        self.restart(state["consumed"])

    def restart(self, consumed: int, *, micro_batch_size: int | None = None) -> None:
        """Go to any place of the stream, backwards too.

        Args:
            consumed: Samples before that position, over all ranks.
            micro_batch_size: Sequences per batch from there on; None keeps the size.
        """
        self.micro_batch_size = micro_batch_size or self.micro_batch_size
        self._epoch, self._epoch_start, self._ahead = self._order.epoch(0), 0, None
        self._fetched = None
        self.consumed = consumed

    def _locate(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of `count` samples of the stream, from a buffer of many that are computed together."""
        if self._ahead is None or not self._ahead[0] <= first <= first + count <= self._ahead[0] + len(self._ahead[1]):
            # Reach back to the samples of the ranks before this one: epochs are only walked forwards.
            base = first - self.rank * self.micro_batch_size
            self._ahead = (base, *self._stream(base, max(AHEAD, self.world_size * self.micro_batch_size)))
            self._tokens.announce(*self._mine())
        base, shards, starts = self._ahead
        return shards[first - base : first - base + count], starts[first - base : first - base + count]

    def _mine(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Those of the places ahead that are this rank's."""
        assert self._ahead is not None
        _, shards, starts = self._ahead
        mine = np.arange(len(shards)) // self.micro_batch_size % self.world_size == self.rank
        return shards[mine], starts[mine]

    def _walk_to(self, place: int) -> None:
        """Make the epoch of this sample of the stream the current one; only forwards."""
        while place >= self._epoch_start + len(self._epoch):
            self._epoch_start += len(self._epoch)
            self._epoch = self._order.epoch(self._epoch.number + 1)

    def _stream(self, first: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of samples [first, first + count) of the stream, across epochs."""
        self._walk_to(first)
        places = []
        epoch, epoch_start = self._epoch, self._epoch_start
        while count:
            take = min(count, epoch_start + len(epoch) - first)
            places.append(epoch.locate(first - epoch_start, take))
            first, count = first + take, count - take
            if count:
                epoch_start += len(epoch)
                epoch = self._order.epoch(epoch.number + 1)
        return np.concatenate([p[0] for p in places]), np.concatenate([p[1] for p in places])


class _Tokens:
    """Reads samples by shard and first token: from memory where the split is small, else from the disk."""

    def __init__(self, split: Split, sample_tokens: int, in_memory_bytes: int) -> None:
        self._split = split
        self._sample = np.arange(sample_tokens)
        sizes = [len(shard) for shard in split.shards]
        width = split.shards[0].header.dtype.itemsize
        self._all = split.read_all() if sum(sizes) * width <= in_memory_bytes else None
        self._base = np.concatenate(([0], np.cumsum(sizes)))[:-1]

    def announce(self, shards: NDArray[np.int64], starts: NDArray[np.int64]) -> None:
        """Tell the system which samples come next, so that it reads them from the disk during training."""
        if self._all is None:
            for shard, start in zip(shards.tolist(), starts.tolist(), strict=True):
                self._split.announce(shard, start, len(self._sample))

    def gather(self, shards: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of consecutive tokens, one per sample, as int64."""
        if self._all is not None:
            return self._all[(self._base[shards] + starts)[:, None] + self._sample].astype(np.int64)
        rows = np.empty((len(starts), len(self._sample)), dtype=np.int64)
        for row, shard, start in zip(rows, shards.tolist(), starts.tolist(), strict=True):
            row[:] = self._split.read(shard, start, len(self._sample))
        return rows


def eval_batches(
    split: Split,
    *,
    block_size: int,
    batch_size: int,
    max_tokens: int = 0,
    rank: int = 0,
    world_size: int = 1,
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]]:
    """A split from its beginning in blocks without overlap: every token after a shard's first is predicted once.

    Args:
        split: Where tokens come from.
        block_size: Tokens per sequence (T); the end of a shard is padded, with targets that do not count.
        batch_size: Sequences per batch (B); the last batch may have fewer.
        max_tokens: Stop after the block in which this many were predicted; 0 goes on to the end.
        rank: This process takes every world_size-th block from `rank` on. All ranks get equally many blocks,
            because ranks exchange messages in every one: a rank with one less gets one whose targets do not count.
        world_size: Processes that share the work.
        progress: Called before each batch with the share of all tokens that has been read.

    Raises:
        UserError: There is no token to predict.
    """
    if all(len(reader) < 2 for reader in split.shards):
        raise UserError(
            f"the validation split has {counted(split.n_tokens, 'token')}, too few to predict one from another; use"
            " more text or a larger share of validation"
        )
    n_tokens = min(max_tokens or split.n_tokens, split.n_tokens)
    rows: list[NDArray[np.integer]] = []
    predicted = number = 0
    for shard, reader in enumerate(split.shards):
        for start in range(0, len(reader) - 1, block_size):
            if max_tokens and predicted >= max_tokens:
                break
            count = min(block_size, len(reader) - 1 - start)
            predicted += count
            number += 1
            if (number - 1) % world_size != rank:
                continue
            if not rows:
                progress((predicted - count) / n_tokens)
            rows.append(split.read(shard, start, count + 1))
            if len(rows) == batch_size:
                yield _padded(rows, block_size)
                rows = []
    if 0 < number % world_size <= rank:
        rows.append(np.zeros(1, dtype=np.int64))
    if rows:
        yield _padded(rows, block_size)


def _padded(rows: Sequence[NDArray[np.integer]], block_size: int) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Rows of up to T + 1 ids as inputs and targets; targets behind the end of a row do not count."""
    idx = np.zeros((len(rows), block_size), dtype=np.int64)
    targets = np.full_like(idx, IGNORE)
    for i, row in enumerate(rows):
        idx[i, : len(row) - 1], targets[i, : len(row) - 1] = row[:-1], row[1:]
    return torch.from_numpy(idx), torch.from_numpy(targets)
