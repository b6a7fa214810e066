"""What may surprise about prepared data, in words for the person who has it prepared or trains on it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from groundup.config.printable import counted
from groundup.data.dataset import Split, TokenDataset
from groundup.data.index import DatasetIndex
from groundup.tokenizer.base import END_OF_TEXT
from groundup.tokenizer.char import what_is_left_out

FEW_BLOCKS = 4
"""Blocks of validation below which a loss is mostly chance."""
CHOSEN = ("files", "hub")
"""Sources that say no split."""
SAMPLE, CHUNKS = 1 << 18, 64
"""Tokens of each split that are looked at, and in how many places."""
FEW_TOKENS = 2_000
"""Less text than this looks like nothing in particular."""
UNLIKE = 1.2
"""How much dearer guessing the validation text by the frequencies of training may be than guessing training text."""
OFTEN = 10
"""Spellings of a separator that are no accident."""


def surprises(index: DatasetIndex, block_size: int = 0) -> Iterator[str]:
    """Lines to show.

    Args:
        index: Of the dataset.
        block_size: The model's context; 0 is unknown, as it is to `groundup prepare`.
    """
    tokens = {split: sum(info.n_tokens for info in index.shards if info.split == split) for split in ("train", "val")}
    share = tokens["val"] / max(1, sum(tokens.values()))
    asked = float(index.settings.get("val_fraction", 0.0))
    ours = index.source in CHOSEN and index.settings.get("val_rule") != "head"
    if ours and not asked / 2 <= share <= 2 * asked:
        yield (
            f"the validation split is {share:.2%} of the tokens, not the {asked:.2%} asked for: the documents are too"
            " few, or of too different sizes"
        )
    if tokens["val"] < (FEW_BLOCKS * block_size or FEW_TOKENS):
        blocks = f", less than {FEW_BLOCKS} blocks of {block_size}" if block_size else ""
        flags = "--data.val-fraction, or a smaller --model.block-size" if block_size else "--val-fraction"
        yield (
            f"the validation split has {counted(tokens['val'], 'token')}{blocks}: its loss says little; use more text"
            f" or a larger {flags}"
        )
    yield from spelled_as_text(index.spelled_ends)
    if index.source in CHOSEN and index.unseparated > 1:
        yield (
            f"{index.unseparated:,} documents run together, for the tokenizer has no {END_OF_TEXT} to set between them;"
            f" one that has it keeps them apart: groundup tokenizer train TEXT --special '{END_OF_TEXT}'"
        )
    if index.unknown:
        left_out = what_is_left_out(index.unknown, sum(tokens.values()))
        yield f"{left_out}; a model of its own learns them all (groundup train TEXT)"
    for reason, count in sorted(index.skipped.items())[:5]:
        yield f"left out {count:,}: {reason}"


def spelled_as_text(times: int) -> Iterator[str]:
    """A line where the spelling of a separator stands in texts so often that it may be meant."""
    if times >= OFTEN:
        yield (
            f"{END_OF_TEXT} stands in the text {times:,} times and is read as plain characters, as all text is; where"
            f" it separates documents, give --separator '{END_OF_TEXT}' (for train: --data.separator)"
        )


def unlike(dataset: TokenDataset) -> Iterator[str]:
    """A line where the validation text is of another kind than the training text: another language, code, one poem.

    Both are guessed by how often each token stands in one half of a sample of the training text. The other half of it
    is the yardstick: new words, which every text has, cost the same there.
    """
    names = {info.split for info in dataset.index.shards}
    if not names >= {"train", "val"}:
        return
    train, val = _sample(dataset.split("train")), _sample(dataset.split("val"))
    if min(sum(map(len, train)), sum(map(len, val))) < FEW_TOKENS:
        return
    counts = np.ones(dataset.index.vocab_size)
    for chunk in train[::2]:
        counts += np.bincount(chunk, minlength=len(counts))
    cost = -np.log(counts / counts.sum())
    usual, found = (float(cost[np.concatenate(chunks)].mean()) for chunks in (train[1::2], val))
    if found > UNLIKE * usual:
        yield (
            f"the validation text is unlike the training text: guessed by how often each token stands in training, it"
            f" costs {found:.2f} nats per token, and training text {usual:.2f}; its loss may say little"
        )


def _sample(split: Split) -> list[NDArray[np.unsignedinteger]]:
    """Pieces of a split, evenly spread over it."""
    size, ends = max(1, min(SAMPLE, split.n_tokens) // CHUNKS), np.cumsum([len(shard) for shard in split.shards])
    pieces = []
    for start in np.linspace(0, split.n_tokens - size, CHUNKS).astype(int):
        shard = int(np.searchsorted(ends, start, side="right"))
        offset = int(start - (ends[shard - 1] if shard else 0))
        pieces.append(split.read(shard, offset, min(size, len(split.shards[shard]) - offset)))
    return pieces
