"""One id a character: the smallest tokenizer that works, and the right one for a first model."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.config.errors import UserError
from groundup.tokenizer.base import fingerprint, utf8

SLICE = 1 << 20
"""Characters that are encoded at a time."""


class CharTokenizer:
    """Maps each character of an alphabet to its position in it.

    Args:
        symbols: The alphabet, in the order of the ids.

    Raises:
        UserError: A symbol is not a single character, is half a surrogate pair, or stands twice.
    """

    eot_id = None
    """Characters only: there is no separator."""

    def __init__(self, symbols: Sequence[str]) -> None:
        if not symbols or any(len(s) != 1 for s in symbols) or len(set(symbols)) != len(symbols):
            raise UserError("a character tokenizer needs distinct symbols of one character each")
        utf8("".join(symbols))
        self.symbols = list(symbols)
        codes = np.array([ord(s) for s in symbols], dtype=np.int64)
        # A table over all code points up to the largest turns encoding into one indexing operation.
        self._ids = np.full(codes.max() + 1, -1, dtype=np.int64)
        self._ids[codes] = np.arange(len(codes))

    @classmethod
    def from_text(cls, texts: Iterable[str]) -> "CharTokenizer":
        """The alphabet of some texts, in the order of code points."""
        alphabet: set[str] = set()
        for text in texts:
            alphabet.update(text)
        if not alphabet:
            raise UserError("a character tokenizer needs text, got none")
        return cls(sorted(alphabet))

    @property
    def vocab_size(self) -> int:
        """Number of symbols."""
        return len(self.symbols)

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
        return np.concatenate([np.empty(0, dtype=np.uint32), *slices])

    def _encode(self, text: str, start: int) -> NDArray[np.uint32]:
        text = text[start : start + SLICE]
        codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32)
        known = codes < len(self._ids)
        ids = self._ids[np.where(known, codes, 0)]
        unknown = ~known | (ids < 0)
        if unknown.any():
            at = int(unknown.argmax())
            raise UserError(
                f"character {text[at]!r} at position {start + at} is not among the {self.vocab_size} symbols"
                f" this model knows: {''.join(s for s in self.symbols if s.isprintable())}"
            )
        return ids.astype(np.uint32)

    def decode(self, ids: Iterable[int]) -> str:
        """The text that ids stand for."""
        symbols, n = self.symbols, len(self.symbols)
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
        """The alphabet."""
        return {"kind": "char", "symbols": self.symbols}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "CharTokenizer":
        """Undo `to_dict`.

        Raises:
            UserError: The symbols are missing, or no alphabet.
        """
        symbols = values.get("symbols")
        if not isinstance(symbols, list) or not all(isinstance(symbol, str) for symbol in symbols):
            raise UserError("a character tokenizer needs a list of symbols")
        return cls(symbols)
