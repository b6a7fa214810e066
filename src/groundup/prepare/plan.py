"""Which ids become which shard. The parts in order are one stream of ids per split; a shard is a range of it.

Training's stream ends with the document whose end is validation, from all parts that have some of it.
"""

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
from groundup.prepare.work import PartResult, ShardPlan, part_name
from groundup.tokenizer.base import Tokenizer


def plan_shards(results: Sequence[PartResult], layout: ShardConfig) -> list[ShardPlan]:
    """Cut the streams of both splits into shards, validation first.

    Args:
        results: What the parts became, in order.
        layout: Sizes; the last shard of a split has what is left.

    Raises:
        UserError: One of the splits would be empty.
    """
    last = [(part_name(number, "last"), result.last_tokens) for number, result in enumerate(results)]
    train = _Stream([(part_name(number, "train"), result.train_tokens) for number, result in enumerate(results)] + last)
    val = _Stream([(part_name(number, "val"), result.val_tokens) for number, result in enumerate(results)])
    start = 0
    ranges = [(val, 0, val.end), (train, 0, train.end)]
    if not val.end and layout.val_rule == "head":
        start = min(layout.shard_tokens, int(train.end * layout.val_fraction))
        ranges = [(train, 0, start), (train, start, train.end)]
    if any(first >= end for _, first, end in ranges):
        n = train.end + val.end
        skipped = sum((Counter(result.skipped) for result in results), Counter())
        most = "".join(f" (skipped {count:,}: {reason})" for reason, count in skipped.most_common(1))
        advice = f"use more text{' or a larger share of validation' if n > 1 else ''}"
        what = "token"
        if layout.val_rule == "hash" and n > 1:
            n, what = sum(result.n_documents for result in results), "document"
            advice = (
                "--val-rule hash puts each into one of the two as a whole: cut the text by --separator, or use"
                " --val-rule documents, which may hold out the end of one"
            )
        raise UserError(
            f"{counted(n, what)} {'is' if n == 1 else 'are'} too few to be split into training and validation{most};"
            f" {advice}"
        )
    plans = []
    names: tuple[SplitName, SplitName] = ("val", "train")
    for split, (stream, first, end) in zip(names, ranges, strict=True):
        for k, at in enumerate(range(first, end, layout.shard_tokens)):
            stop = min(at + layout.shard_tokens, end)
            is_cut = split == "train" and stop == end and any(count for _, count in last)
            plans.append(ShardPlan(f"{split}-{k:06d}.bin", split, stream.pieces(at, stop), is_cut))
    return plans


class _Stream:
    """The ids of files, laid end to end; each is named with their number."""

    def __init__(self, files: Sequence[tuple[str, int]]) -> None:
        self._files = files
        self._ends = list(accumulate(count for _, count in files))
        self.end = self._ends[-1]

    def pieces(self, start: int, end: int) -> tuple[tuple[str, int, int], ...]:
        """The range [start, end) as (part file, first id, number of ids)."""
        pieces = []
        number = bisect_right(self._ends, start)
        while start < end:
            count = min(end, self._ends[number]) - start
            if count:
                file, size = self._files[number]
                pieces.append((file, start - (self._ends[number] - size), count))
            start += count
            number += 1
        return tuple(pieces)


def bytes_per_id(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """UTF-8 bytes that each id spells; the separator spells none."""
    sizes = [0 if i == tokenizer.eot_id else len(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)]
    return np.array(sizes, dtype=np.int64)
