"""What every tokenizer does. Files of other programs need its kind as well; all else needs only this protocol."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from groundup.config.errors import UserError

END_OF_TEXT = "<|endoftext|>"
"""The special token that separates documents in GPT-2's vocabulary, and by default in ours."""


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back. Text is always plain: `<|endoftext|>` in it is thirteen characters, never the token."""

    @property
    def vocab_size(self) -> int:
        """Number of ids: every id is in [0, vocab_size)."""

    @property
    def eot_id(self) -> int | None:
        """The id that separates documents, or None where the vocabulary has none."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of everything that decides the ids: equal fingerprints mean equal encodings."""

    def encode(self, text: str) -> list[int]:
        """Encode text.

        Raises:
            UserError: The vocabulary cannot express the text; the message names the first offender.
        """

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """`encode` for bulk work: the same ids, without a Python integer for each."""

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            UserError: An id is outside the vocabulary.
        """

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Decode ids to the exact bytes they stand for."""

    def to_dict(self) -> dict[str, Any]:
        """Everything needed to build this tokenizer again, as JSON values; `kind` names the class."""


def utf8(text: str) -> bytes:
    """The UTF-8 bytes of a text.

    Raises:
        UserError: The text holds half a surrogate pair, which is no character and has no UTF-8; the position is named.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"the text is not valid Unicode: lone surrogate U+{code:04X} at position {error.start};"
            ' replace it first, for example with text.encode(errors="replace").decode()'
        ) from None


def join_tokens(tokens: Sequence[bytes], ids: Iterable[int]) -> bytes:
    """The bytes that ids stand for.

    Args:
        tokens: The bytes of every id.
        ids: What to join.

    Raises:
        UserError: An id is outside the vocabulary.
    """
    n = len(tokens)
    parts = []
    for i in ids:
        if not 0 <= i < n:
            raise UserError(f"id {i} is outside the vocabulary of {n}")
        parts.append(tokens[i])
    return b"".join(parts)


def fingerprint(values: dict[str, Any]) -> str:
    """SHA-256 (hex) of what `to_dict` gives."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
