"""What may surprise about prepared data, in words for the person who has it prepared or trains on it."""

from collections.abc import Iterator

from groundup.data.index import DatasetIndex
from groundup.tokenizer.base import END_OF_TEXT

FEW_BLOCKS = 4
"""Blocks of validation below which a loss is mostly chance."""
CHOSEN = ("files", "hub")
"""Sources that say no split."""
OFTEN = 10
"""Spellings of a separator that are no accident."""


def surprises(index: DatasetIndex, block_size: int = 0) -> Iterator[str]:
    """Lines to show.

    Args:
        index: Of the dataset.
        block_size: The model's context; 0 is unknown.
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
    if block_size and tokens["val"] < FEW_BLOCKS * block_size:
        yield (
            f"the validation split has {tokens['val']:,} tokens, less than {FEW_BLOCKS} blocks of {block_size}: its"
            " loss says little; use more text, a larger val_fraction or a smaller block_size"
        )
    if index.spelled_ends >= OFTEN:
        yield (
            f"{END_OF_TEXT} stands in the text {index.spelled_ends:,} times and is read as plain characters, as all"
            f" text is; where it separates documents, give --separator '{END_OF_TEXT}' (for train: --data.separator)"
        )
    for reason, count in sorted(index.skipped.items())[:5]:
        yield f"left out {count:,}: {reason}"
