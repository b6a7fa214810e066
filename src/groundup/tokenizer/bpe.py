"""Byte-level byte pair encoding: the tokenizer of GPT-2, in Python to be read and to be used.

Text is split into words by a regular expression. A word begins as its UTF-8 bytes, each of them a token; then the pair
of neighbors that was learned first is merged into one token, and again, until no pair is left that was learned. So any
text has ids, and common words have one.

    ids 0..255        the bytes
    ids 256..         the merges, in the order in which they were learned
    then              special tokens

A tokenizer that another program learned may number the same tokens otherwise: `ids` then says how.

Sources: Sennrich, Haddow and Birch 2016 (BPE), section 3.2; Radford et al. 2019 (GPT-2), section 2.2. Training is in
`bpe_train.py`, and both in their plainest form in `reference.py`. What counts as a letter follows the Unicode version
of the installed `regex`: another version may split characters otherwise that this one does not know yet.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
import regex
from numpy.typing import NDArray

from groundup.config.errors import UserError
from groundup.config.limits import PATTERN_SECONDS, TOKEN_BYTES, VOCABULARY_BYTES
from groundup.tokenizer.added import ALWAYS, FLAGS, AddedTokens
from groundup.tokenizer.base import END_OF_TEXT, fingerprint, join_tokens, utf8
from groundup.tokenizer.bpe_long import LongWords

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Contractions, words, numbers and punctuation, each with the space before it; white space."""

LONG_WORD = 1_000
"""Bytes from which a word is merged with arrays: the loop of `merge_word` takes time with the square of the length."""
CACHED_WORDS = 1 << 17
"""Words whose ids are remembered, about 40 MB of them."""

PATTERN_LETTERS, PATTERN_REPEATS = 10_000, 1 << 16
"""The longest pattern, and the most repeats that its counts `{n,m}` may ask for, all multiplied."""

Pair = tuple[int, int]


class ByteBPE:
    """Text to ids by merging pairs of bytes.

    Args:
        merges: Pairs of ids; the i-th pair becomes id 256 + i and may use every id before it.
        specials: Special tokens, in the order of their ids. Text becomes one where `allow_special` is given, or where
            `matching` says so.
        pattern: Regular expression of a word, in the syntax of the `regex` package. What lies between its matches is
            a word as well, so no text is ever lost.
        ids: The id of each of the bytes, merges and special tokens above; None numbers them in this order. Merges
            that make the same token share its id, and a byte without an id has -1.
        end: The special token that separates documents.
        matching: How added tokens are found in text (`added.FLAGS`), where that is not as special tokens are. Such a
            token is a special one, or one that merges make.
        settings: What other programs keep beside the ids: the roles of special tokens, the form of a chat.

    Raises:
        UserError: A merge uses an id that does not exist yet or stands twice, a special token is empty or stands twice,
            a token is too long, the pattern is not one, or the ids leave a hole.
    """

    def __init__(
        self,
        merges: Iterable[Pair],
        *,
        specials: Sequence[str] = (END_OF_TEXT,),
        pattern: str = GPT2_PATTERN,
        ids: Sequence[int] | None = None,
        end: str = END_OF_TEXT,
        matching: Mapping[str, Sequence[str]] = MappingProxyType({}),
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.matching, self.settings = {token: list(flags) for token, flags in matching.items()}, dict(settings)
        self.merges, self.specials, self.pattern, self.end = list(merges), list(specials), pattern, end
        self._words = compile_words(pattern)
        self._rank = {pair: i for i, pair in enumerate(self.merges)}
        if len(self._rank) < len(self.merges):
            raise UserError("a byte pair encoding needs distinct merges; one of them stands twice")
        if len(set(self.specials)) < len(self.specials) or "" in self.specials:
            raise UserError(f"special tokens must be distinct and not empty, got {self.specials}")
        spelled = [*token_bytes(self.merges), *map(utf8, self.specials)]
        self.ids = None if ids is None or list(ids) == list(range(len(spelled))) else list(ids)
        self._tokens = spelled if self.ids is None else _by_id(spelled, self.ids)
        numbers = range(len(spelled)) if self.ids is None else self.ids
        self.special_ids = dict(zip(self.specials, numbers[256 + len(self.merges) :], strict=True))
        self._always, self._all = self._added(spelled, numbers)
        first: dict[int, int] = {}
        self._made = [first.setdefault(i, n) for n, i in enumerate(numbers)][256 : 256 + len(self.merges)]
        """What each merge makes: itself, or the earlier token whose id it shares."""
        self._ids_of_word = _WordCache(self)

    def _added(self, spelled: Sequence[bytes], numbers: Sequence[int]) -> tuple[AddedTokens | None, AddedTokens | None]:
        """What finds the tokens that every text may hold, and what finds all added ones.

        Raises:
            UserError: A token that is to be found is none, or in a way that there is not.
        """
        ids = dict(self.special_ids)
        if others := [token for token in self.matching if token not in ids]:
            made = dict(zip(spelled, numbers, strict=True))
            if unknown := [token for token in others if utf8(token) not in made]:
                raise UserError(f"{unknown[0]!r} is to be found in text, and is not among the tokens")
            ids |= {token: made[utf8(token)] for token in others}
        if odd := {flag for flags in self.matching.values() for flag in flags} - set(FLAGS):
            raise UserError(f"tokens are found by {', '.join(FLAGS)}, not by {', '.join(sorted(odd))}")
        always = {token: i for token, i in ids.items() if ALWAYS in self.matching.get(token, ())}
        return (
            AddedTokens(always, self.matching) if always else None,
            AddedTokens(ids, self.matching) if ids else None,
        )

    @property
    def vocab_size(self) -> int:
        """Bytes, merges and special tokens."""
        return len(self._tokens)

    @property
    def eot_id(self) -> int | None:
        """The id of the token that separates documents, if it is among the special tokens."""
        return self.special_ids.get(self.end)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the ids."""
        return fingerprint({name: value for name, value in self.to_dict().items() if name != "settings"})

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Encode text.

        Args:
            text: Any text.
            allow_special: Let special tokens in the text become their ids. Only for text that nobody else wrote.

        Raises:
            UserError: The text holds a lone surrogate or a byte without an id, or takes the pattern too long.
        """
        with _in_time(self.pattern):
            return list(self._encode(text, allow_special=allow_special))

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text as an array."""
        with _in_time(self.pattern):
            return np.fromiter(self._encode(text, allow_special=False), dtype=np.uint32)

    def _encode(self, text: str, *, allow_special: bool) -> Iterator[int]:
        utf8(text)  # a lone surrogate is named by its position in the text, not in a word
        if added := self._all if allow_special else self._always:
            pieces = added.split(text)
            return chain.from_iterable([piece] if isinstance(piece, int) else self._cut(piece) for piece in pieces)
        return self._cut(text)

    def _cut(self, text: str) -> Iterator[int]:
        # Split, look up and chain without a step of Python for a word that was seen before.
        words = filter(None, self._words.splititer(text, timeout=_seconds(text)))
        return chain.from_iterable(map(self._ids_of_word.__getitem__, words))

    def merge_word(self, word: bytes) -> list[int]:
        """The ids of one word: merge the pair with the lowest rank, leftmost first, until none is left."""
        ids, never = list(word), len(self.merges)
        ranks = [self._rank.get(pair, never) for pair in pairwise(ids)]  # ranks[i] belongs to ids[i] and ids[i + 1]
        while ranks and (rank := min(ranks)) < never:
            i = ranks.index(rank)
            ids[i : i + 2] = [self._made[rank]]
            del ranks[i]
            if i > 0:
                ranks[i - 1] = self._rank.get((ids[i - 1], ids[i]), never)
            if i < len(ranks):
                ranks[i] = self._rank.get((ids[i], ids[i + 1]), never)
        return ids

    @cached_property
    def _long_words(self) -> LongWords | None:
        """None where a merge makes an earlier token: that brings back ranks which `LongWords` has dealt with."""
        return LongWords(self.merges) if self._made == list(range(256, 256 + len(self.merges))) else None

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
        """Pattern, special tokens, and the merges as `"left right"`; all else where it is not the usual."""
        merges = [f"{a} {b}" for a, b in self.merges]
        usual: dict[str, Any] = {"ids": None, "end": END_OF_TEXT, "matching": {}, "settings": {}}
        more = {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        return {"kind": "bpe", "pattern": self.pattern, "specials": self.specials, "merges": merges, **more}

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
        ids, end = values.get("ids"), values.get("end", END_OF_TEXT)
        if not isinstance(end, str):
            raise UserError("the end of a byte pair encoding must be a special token")
        if ids is not None and not (isinstance(ids, list) and all(type(i) is int for i in ids)):
            raise UserError("the ids of a byte pair encoding must be a list of whole numbers")
        found, settings = values.get("matching", {}), values.get("settings", {})
        if not isinstance(found, dict) or not all(isinstance(flags, list) for flags in found.values()):
            raise UserError("the matching of a byte pair encoding must be lists of flags by token")
        if not isinstance(settings, dict):
            raise UserError("the settings of a byte pair encoding must be an object")
        specials = _strings(values, "specials")
        return cls(merges, specials=specials, pattern=pattern, ids=ids, end=end, matching=found, settings=settings)


class _WordCache(dict[str, list[int]]):
    """Ids of words; a word that is not there is encoded and remembered. Bounded: when it is full, it starts anew."""

    def __init__(self, bpe: ByteBPE) -> None:
        self._bpe = bpe

    def __missing__(self, word: str) -> list[int]:
        data = word.encode()
        long = self._bpe._long_words if len(data) >= LONG_WORD else None
        ids = self._bpe.merge_word(data) if long is None else long.merge(data).tolist()
        if (numbers := self._bpe.ids) is not None:
            ids = [numbers[i] for i in ids]
            if min(ids) < 0:
                raise UserError(f"the vocabulary lacks a byte of {word[:20]!r}")
        if len(data) < LONG_WORD:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = ids
        return ids


def token_bytes(merges: Sequence[Pair]) -> list[bytes]:
    """The bytes of the 256 bytes and of every merge.

    Raises:
        UserError: A merge joins what is not there yet, or the tokens would be too long.
    """
    lengths, total = [1] * 256, 0
    for a, b in merges:  # lengths first: each merge may double the longest token
        if not (0 <= a < len(lengths) and 0 <= b < len(lengths)):
            raise UserError(f"merge {len(lengths) - 256} joins {a} and {b}, which are not both earlier ids")
        lengths.append(lengths[a] + lengths[b])
        total += lengths[-1]
        TOKEN_BYTES.check(lengths[-1], f"token {len(lengths) - 1} of the byte pair encoding")
        VOCABULARY_BYTES.check(total, "the byte pair encoding")
    tokens = [bytes([byte]) for byte in range(256)]
    for a, b in merges:
        tokens.append(tokens[a] + tokens[b])
    return tokens


def _by_id(spelled: Sequence[bytes], ids: Sequence[int]) -> list[bytes]:
    """The token of every id.

    Raises:
        UserError: Not one id per token, an id is left out, or one stands for two different tokens.
    """
    if len(ids) != len(spelled):
        raise UserError(f"a byte pair encoding of {len(spelled)} tokens needs as many ids, got {len(ids)}")
    tokens: dict[int, bytes] = {}
    for i, (number, token) in enumerate(zip(ids, spelled, strict=True)):
        if number == -1 and i < 256:
            continue
        if tokens.setdefault(number, token) != token:
            raise UserError(f"id {number} stands for {tokens[number]!r} and for {token!r}")
    if holes := [i for i in range(len(tokens)) if i not in tokens]:
        raise UserError(f"no token has id {holes[0]}, though there are {len(tokens)} ids; they must go from 0 on")
    return [tokens[i] for i in range(len(tokens))]


def _seconds(text: str) -> float:
    """How long a pattern may work on a text: honest ones read a million characters in a second."""
    return PATTERN_SECONDS.value + len(text) / 10_000


@contextmanager
def _in_time(pattern: str) -> Iterator[None]:
    """Name the pattern that takes too long."""
    try:
        yield
    except TimeoutError:
        raise PATTERN_SECONDS.passed(f"the split pattern {pattern[:200]!r}") from None


def split_words(text: str, words: regex.Pattern[str]) -> Iterator[str]:
    """The words of a text; joined they are the text.

    Raises:
        UserError: The pattern takes too long.
    """
    with _in_time(words.pattern):
        yield from filter(None, words.splititer(text, timeout=_seconds(text)))


def compile_words(pattern: str) -> regex.Pattern[str]:
    """The pattern in one group: `split` then returns words and what lies between them, that is, the whole text.

    Raises:
        UserError: Not a regular expression, one with groups of its own, or one that takes all memory.
    """
    utf8(pattern)
    repeats = math.prod(max(1, *map(_count, counts)) for counts in _COUNTS.findall(pattern))
    if len(pattern) > PATTERN_LETTERS or repeats > PATTERN_REPEATS:
        raise UserError(
            f"the split pattern is too large: at most {PATTERN_LETTERS:,} characters and {PATTERN_REPEATS:,} repeats"
            f" by counts are taken: {pattern[:200]}"
        )
    try:
        if regex.compile(pattern).groups:
            raise UserError(f"the split pattern must have no capturing groups; write (?:...) for (...): {pattern}")
        return regex.compile(f"({pattern})")
    except regex.error as error:
        raise UserError(f"the split pattern is not a regular expression: {error}: {pattern}") from None


_COUNTS = regex.compile(r"\{([0-9]*),?([0-9]*)\}")
"""Repeats by number, as in `{1,3}`."""


def _count(digits: str) -> int:
    return int(digits or 0) if len(digits) < 10 else PATTERN_REPEATS + 1


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
