"""Byte-level byte pair encoding: the tokenizer of GPT-2, in Python to be read and to be used.

Text is split into words by a regular expression. A word begins as its UTF-8 bytes, each of them a token; then the pair
of neighbors that was learned first is merged into one token, and again, until no pair is left that was learned. So any
text has ids, and common words have one.

    ids 0..255        the bytes
    ids 256..         the merges, in the order in which they were learned
    then              special tokens

Sources: Sennrich, Haddow and Birch 2016 (BPE), section 3.2; Radford et al. 2019 (GPT-2), section 2.2. Training is in
`bpe_train.py`, and both in their plainest form in `reference.py`. What counts as a letter follows the Unicode version
of the installed `regex`: another version may split characters otherwise that this one does not know yet.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, pairwise
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from groundup.config.errors import UserError
from groundup.tokenizer.base import END_OF_TEXT, fingerprint, join_tokens, utf8
from groundup.tokenizer.bpe_long import LongWords

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Contractions, words, numbers and punctuation, each with the space before it; white space."""

LONG_WORD = 1_000
"""Bytes from which a word is merged with arrays: the loop of `merge_word` takes time with the square of the length."""
CACHED_WORDS = 1 << 17
"""Words whose ids are remembered, about 40 MB of them."""

Pair = tuple[int, int]


class ByteBPE:
    """Text to ids by merging pairs of bytes.

    Args:
        merges: Pairs of ids; the i-th pair becomes id 256 + i and may use every id before it.
        specials: Special tokens, in the order of their ids. Text never becomes one unless `allow_special` is given.
        pattern: Regular expression of a word, in the syntax of the `regex` package. What lies between its matches is
            a word as well, so no text is ever lost.

    Raises:
        UserError: A merge uses an id that does not exist yet or stands twice, a special token is empty or stands twice,
            or the pattern is not one.
    """

    def __init__(
        self, merges: Iterable[Pair], *, specials: Sequence[str] = (END_OF_TEXT,), pattern: str = GPT2_PATTERN
    ) -> None:
        self.merges, self.specials, self.pattern = list(merges), list(specials), pattern
        self._words = compile_words(pattern)
        self._rank = {pair: i for i, pair in enumerate(self.merges)}
        if len(self._rank) < len(self.merges):
            raise UserError("a byte pair encoding needs distinct merges; one of them stands twice")
        if len(set(self.specials)) < len(self.specials) or "" in self.specials:
            raise UserError(f"special tokens must be distinct and not empty, got {self.specials}")
        self._tokens = [bytes([byte]) for byte in range(256)]
        for a, b in self.merges:
            if not (0 <= a < len(self._tokens) and 0 <= b < len(self._tokens)):
                raise UserError(f"merge {len(self._tokens) - 256} joins {a} and {b}, which are not both earlier ids")
            self._tokens.append(self._tokens[a] + self._tokens[b])
        self._special_ids = {token: len(self._tokens) + i for i, token in enumerate(self.specials)}
        self._tokens += [utf8(token) for token in self.specials]
        self._ids_of_word = _WordCache(self)

    @property
    def vocab_size(self) -> int:
        """Bytes, merges and special tokens."""
        return len(self._tokens)

    @property
    def eot_id(self) -> int | None:
        """The id of `<|endoftext|>`, if it is among the special tokens."""
        return self._special_ids.get(END_OF_TEXT)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of merges, special tokens and pattern."""
        return fingerprint(self.to_dict())

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Encode text.

        Args:
            text: Any text.
            allow_special: Let special tokens in the text become their ids. Only for text that nobody else wrote.

        Raises:
            UserError: The text holds a lone surrogate.
        """
        return list(self._encode(text, allow_special=allow_special))

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text as an array."""
        return np.fromiter(self._encode(text, allow_special=False), dtype=np.uint32)

    def _encode(self, text: str, *, allow_special: bool) -> Iterator[int]:
        utf8(text)  # a lone surrogate is named by its position in the text, not in a word
        if allow_special and self.specials:
            return chain.from_iterable(
                [self._special_ids[part]] if part in self._special_ids else self._encode(part, allow_special=False)
                for part in self._special_words.split(text)
            )
        # Split, look up and chain without a step of Python for a word that was seen before.
        words = filter(None, self._words.splititer(text))
        return chain.from_iterable(map(self._ids_of_word.__getitem__, words))

    @cached_property
    def _special_words(self) -> regex.Pattern[str]:
        """Cuts text at special tokens; of two that begin alike, the longer is meant."""
        return regex.compile(f"({'|'.join(map(regex.escape, sorted(self.specials, key=len, reverse=True)))})")

    def merge_word(self, word: bytes) -> list[int]:
        """The ids of one word: merge the pair with the lowest rank, leftmost first, until none is left."""
        ids, never = list(word), len(self.merges)
        ranks = [self._rank.get(pair, never) for pair in pairwise(ids)]  # ranks[i] belongs to ids[i] and ids[i + 1]
        while ranks and (rank := min(ranks)) < never:
            i = ranks.index(rank)
            ids[i : i + 2] = [256 + rank]
            del ranks[i]
            if i > 0:
                ranks[i - 1] = self._rank.get((ids[i - 1], ids[i]), never)
            if i < len(ranks):
                ranks[i] = self._rank.get((ids[i], ids[i + 1]), never)
        return ids

    @cached_property
    def _long_words(self) -> LongWords:
        return LongWords(self.merges)

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes that ids stand for.

        Raises:
            UserError: An id is outside the vocabulary.
        """
        return join_tokens(self._tokens, ids)

    def to_dict(self) -> dict[str, Any]:
        """Pattern, special tokens, and the merges as `"left right"`."""
        merges = [f"{a} {b}" for a, b in self.merges]
        return {"kind": "bpe", "pattern": self.pattern, "specials": self.specials, "merges": merges}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ByteBPE":
        """Undo `to_dict`.

        Raises:
            UserError: A value is missing or of the wrong type.
        """
        pattern = values.get("pattern")
        if not isinstance(pattern, str):
            raise UserError("a byte pair encoding needs a pattern")
        merges = [_pair(merge) for merge in _strings(values, "merges")]
        return cls(merges, specials=_strings(values, "specials"), pattern=pattern)


class _WordCache(dict[str, list[int]]):
    """Ids of words; a word that is not there is encoded and remembered. Bounded: when it is full, it starts anew."""

    def __init__(self, bpe: ByteBPE) -> None:
        self._bpe = bpe

    def __missing__(self, word: str) -> list[int]:
        data = word.encode()
        if len(data) >= LONG_WORD:
            return self._bpe._long_words.merge(data).tolist()
        if len(self) >= CACHED_WORDS:
            self.clear()
        ids = self[word] = self._bpe.merge_word(data)
        return ids


def compile_words(pattern: str) -> regex.Pattern[str]:
    """The pattern in one group: `split` then returns words and what lies between them, that is, the whole text.

    Raises:
        UserError: Not a regular expression, or one with groups of its own.
    """
    utf8(pattern)
    try:
        if regex.compile(pattern).groups:
            raise UserError(f"the split pattern must have no capturing groups; write (?:...) for (...): {pattern}")
        return regex.compile(f"({pattern})")
    except regex.error as error:
        raise UserError(f"the split pattern is not a regular expression: {error}: {pattern}") from None


def _strings(values: dict[str, Any], key: str) -> list[str]:
    strings = values.get(key)
    if not isinstance(strings, list) or not all(isinstance(value, str) for value in strings):
        raise UserError(f"a byte pair encoding needs a list of {key}")
    return strings


def _pair(merge: str) -> Pair:
    found = regex.fullmatch(r"([0-9]{1,9}) ([0-9]{1,9})", merge)
    if found is None:
        raise UserError(f"a merge must be two ids, got {merge!r}")
    return int(found[1]), int(found[2])
