"""Which ids become which shard. The parts in order are one stream of ids per split; a shard is a range of it."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from groundup.config.data import ShardConfig
from groundup.config.errors import UserError
from groundup.config.printable import counted
from groundup.formats.document import SplitName
from groundup.prepare.work import PartResult, ShardPlan
from groundup.tokenizer.base import Tokenizer


def plan_shards(results: Sequence[PartResult], layout: ShardConfig) -> list[ShardPlan]:
    """Cut the streams of both splits into shards, validation first.

    Args:
        results: What the parts became, in order.
        layout: Sizes; the last shard of a split has what is left.

    Raises:
        UserError: One of the splits would be empty.
    """
    train = _Stream("train", [result.train_tokens for result in results])
    val = _Stream("val", [result.val_tokens for result in results])
    start = 0
    ranges = [(val, 0, val.end), (train, 0, train.end)]
    if not val.end and layout.val_rule == "head":
        start = min(layout.shard_tokens, int(train.end * layout.val_fraction))
        ranges = [(train, 0, start), (train, start, train.end)]
    if any(first >= end for _, first, end in ranges):
        n = train.end + val.end
        skipped = sum((Counter(result.skipped) for result in results), Counter())
        most = "".join(f" (skipped {count:,}: {reason})" for reason, count in skipped.most_common(1))
        raise UserError(
            f"{counted(n, 'token')} {'is' if n == 1 else 'are'} too few to be split into training and validation{most};"
            f" use more text{' or a larger share of validation' if n > 1 else ''}"
        )
    plans = []
    names: tuple[SplitName, SplitName] = ("val", "train")
    for split, (stream, first, end) in zip(names, ranges, strict=True):
        for k, at in enumerate(range(first, end, layout.shard_tokens)):
            pieces = stream.pieces(at, min(at + layout.shard_tokens, end))
            plans.append(ShardPlan(f"{split}-{k:06d}.bin", split, pieces))
    return plans


class _Stream:
    """The ids of all parts for one split, laid end to end."""

    def __init__(self, split: SplitName, counts: Sequence[int]) -> None:
        self._split, self._counts = split, counts
        self._ends = list(accumulate(counts))
        self.end = self._ends[-1]

    def pieces(self, start: int, end: int) -> tuple[tuple[str, int, int], ...]:
        """The range [start, end) as (part file, first id, number of ids)."""
        pieces = []
        number = bisect_right(self._ends, start)
        while start < end:
            count = min(end, self._ends[number]) - start
            if count:
                first = start - (self._ends[number] - self._counts[number])
                pieces.append((f"part-{number:06d}.{self._split}", first, count))
            start += count
            number += 1
        return tuple(pieces)


def bytes_per_id(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """UTF-8 bytes that each id spells; the separator spells none."""
    sizes = [0 if i == tokenizer.eot_id else len(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)]
    return np.array(sizes, dtype=np.int64)
