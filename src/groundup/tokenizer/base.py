"""What every tokenizer does. Rooms above know only this protocol, never a concrete class."""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


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
