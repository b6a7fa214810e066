"""One id a character: the smallest tokenizer that works, and the right one for a first model."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from groundup.config.errors import UserError
from groundup.config.printable import counted
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer, fingerprint, utf8

SLICE = 1 << 20
"""Characters that are encoded at a time."""
UNKNOWN = 0xFFFFFFFF
"""Stands in the table for a character that is no symbol; it is larger than any id."""
FOREIGN = 0.2
"""Share of a text that may be left out because the alphabet lacks it."""
NAMED = 5
"""Characters that are named of those."""
SHOWN = 100
"""Symbols that a message names: Chinese has thousands."""


class CharTokenizer:
    """Maps each character of an alphabet to its position in it.

    Args:
        symbols: The alphabet, in the order of the ids.
        separates: Have one id more, the end of a document, which no character stands for.

    Raises:
        UserError: A symbol is not a single character, is half a surrogate pair, or stands twice.
    """

    def __init__(self, symbols: Sequence[str], *, separates: bool = False) -> None:
        if not symbols or any(len(s) != 1 for s in symbols) or len(set(symbols)) != len(symbols):
            raise UserError("a character tokenizer needs distinct symbols of one character each")
        utf8("".join(symbols))
        self.symbols, self.separates = list(symbols), separates
        self._texts = [*self.symbols, *[END_OF_TEXT] * separates]
        codes = np.array([ord(s) for s in symbols], dtype=np.int64)
        # A table over all code points up to the largest turns encoding into one indexing operation.
        # Larger ones are clipped to its last entry, which stands for no symbol.
        self._ids = np.full(codes.max() + 2, UNKNOWN, dtype=np.uint32)
        self._ids[codes] = np.arange(len(codes))

    @classmethod
    def from_text(cls, texts: Iterable[str], *, separates: bool = False) -> "CharTokenizer":
        """The alphabet of some texts, in the order of code points."""
        alphabet: set[str] = set()
        for text in texts:
            alphabet.update(text)
        if not alphabet:
            raise UserError("a character tokenizer needs text, got none")
        return cls(sorted(alphabet), separates=separates)

    @property
    def vocab_size(self) -> int:
        """Number of symbols, and the end of a document where there is one."""
        return len(self._texts)

    @property
    def eot_id(self) -> int | None:
        """The last id, or None where documents are not separated."""
        return len(self.symbols) if self.separates else None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the alphabet."""
        return fingerprint(self.to_dict())

    def encode(self, text: str) -> list[int]:
        """Ids of the characters of a text."""
        return self.encode_array(text).tolist()

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """Ids of the characters of a text.

        Raises:
            UserError: A character is not in the alphabet.
        """
        # In slices: the steps in between take 20 bytes a character.
        slices = [self._encode(text, start) for start in range(0, len(text), SLICE)]
        return slices[0] if len(slices) == 1 else np.concatenate([np.empty(0, dtype=np.uint32), *slices])

    def _encode(self, text: str, start: int) -> NDArray[np.uint32]:
        text = text[start : start + SLICE]
        codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
        ids = self._ids.take(codes, mode="clip")
        if ids.max() == UNKNOWN:
            at = int(ids.argmax())
            raise UserError(
                f"character {_named(text[at])} at position {start + at} is not among the {len(self.symbols)} symbols"
                f" this model knows: {self._alphabet()}{_other_form(text, at, set(self.symbols))}"
            )
        return ids

    def _alphabet(self) -> str:
        """The symbols that can be seen, or the first of many."""
        seen = [s for s in self.symbols if s.isprintable()]
        return "".join(seen) if len(seen) <= SHOWN else f"{''.join(seen[:SHOWN])} and {len(seen) - SHOWN:,} more"

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for; the end of a document is spelled `<|endoftext|>`."""
        symbols, n = self._texts, len(self._texts)
        text = []
        for i in ids:
            if not 0 <= i < n:
                raise UserError(f"id {i} is outside the vocabulary of {n}")
            text.append(symbols[i])
        return "".join(text)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The UTF-8 of the text that ids stand for."""
        return self.decode(ids).encode()

    def to_dict(self) -> dict[str, Any]:
        """The alphabet, and whether documents are separated."""
        return {"kind": "char", "symbols": self.symbols} | ({"separates": True} if self.separates else {})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CharTokenizer":
        """Undo `to_dict`.

        Raises:
            UserError: The symbols are missing, or no alphabet.
        """
        symbols = values.get("symbols")
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise UserError("a character tokenizer needs a list of symbols")
        separates = values.get("separates", False)
        if not isinstance(separates, bool):
            raise UserError(f'"separates" of a character tokenizer must be true or false, got {separates!r}')
        return cls(symbols, separates=separates)


def only_known(tokenizer: Tokenizer, text: str, left_out: Counter[str]) -> str:
    """A text without the characters that an alphabet, made for another text, lacks.

    Args:
        tokenizer: Any; those that are not of characters know all of them.
        text: To be learned or measured.
        left_out: Counts them.
    """
    if not isinstance(tokenizer, CharTokenizer) or not (unknown := set(text).difference(tokenizer.symbols)):
        return text
    left_out.update({character: text.count(character) for character in unknown})
    return text.translate(dict.fromkeys(map(ord, unknown)))


def what_is_left_out(left_out: Mapping[str, int], kept: int) -> str:
    """How much of a text was left out, and the characters that stood there most.

    Args:
        left_out: Each character, and how often it stood there.
        kept: Characters that stayed.

    Raises:
        UserError: More than a `FOREIGN` share was: what is left is no text any more.
    """
    often = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{character!r} {count:,}x" for character, count in often[:NAMED])
    more = f", and {counted(len(often) - NAMED, 'other')}" if len(often) > NAMED else ""
    count = sum(left_out.values())
    share = count / max(1, count + kept)
    what = f"{counted(count, 'character')} ({share:.2%}) that the tokenizer does not know: {shown}{more}"
    if share > FOREIGN:
        raise UserError(f"the text has {what}; these are too many to be left out")
    return f"left out {what}"


def _named(character: str) -> str:
    """A character to look at; one that cannot be seen alone also by its name."""
    shown = repr(character)
    if unicodedata.combining(character) or not character.isprintable():
        return f"{shown} (U+{ord(character):04X} {unicodedata.name(character, 'without a name')})"
    return shown


def _other_form(text: str, at: int, known: set[str]) -> str:
    """Advice where the alphabet has a character in another of Unicode's forms.

    An accented letter is one symbol or two; a ligature, a wide letter and a no-break space have plain forms.
    """
    begin = at
    while begin > 0 and unicodedata.combining(text[begin]):
        begin -= 1
    end = at + 1
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    forms: tuple[tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], str, str], ...] = (
        ("NFC", "one symbol", "composed"),
        ("NFD", "a letter and an accent", "decomposed"),
        ("NFKC", "plain characters", "compatible"),
        ("NFKD", "plain characters", "compatible and decomposed"),
    )
    for form, there, here in forms:
        other = unicodedata.normalize(form, text[begin:end])
        if other != text[begin:end] and set(other) <= known:
            return (
                f"; it knows {other!r} as {there} ({here}, {form}): give the text in that form,"
                f' for example with python -c \'import sys, unicodedata; print(unicodedata.normalize("{form}",'
                " sys.stdin.read()), end=str())'"
            )
    return ""
