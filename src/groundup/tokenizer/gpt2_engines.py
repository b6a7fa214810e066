"""Encode with tiktoken, or with gigatoken if it is installed and gives the same ids on a probe text."""

import base64
import importlib.util
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import regex
from numpy.typing import NDArray

from groundup.config.errors import UserError

EngineName = Literal["auto", "tiktoken", "gigatoken"]
Vocabulary = dict[bytes, int]

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
r"""GPT-2's pattern as tiktoken writes it: it never backtracks over a word, and `$` is the end of the text."""

PROBE = (
    "The quick brown fox's 'LL don't we'll I'd  2 spaces\n\n\n\ttabs\r\n trailing   \u00a0\u3000x <|endoftext|> "
    "1234½²٣ naïve e\u0301 ß ﬁ 東京の天気 서울 مرحبا नमस्ते שלום ไทย 👩‍👩‍👧 🇪🇺 \u200b\u2028\x1c\x85 {}()[];:=>!! "
    "aaaaaaaaaaaaaaaa =========== \U0001fae0 \U00031350 \U00010d4e \ufeff  "
)
"""A little of everything. Which fast engine is used is decided by this text, on every start."""


NEW_LETTERS = "\u088f\u0c5c\u0cdc\ua7ce\ua7cf\ua7d2\ua7d4\ua7f1"
NEW_BLOCKS = re.compile(
    rb"\xf0(?:\x90[\xa5\xbb]|\x91[\xb6\xb7]|\x96[\xba\xbb\xbf]|\x98[\x9f\xb4\xb6\xb7]"
    rb"|\x9e\x9b|\xab\x9c|\xac\xba|\xb2[\x8e-\xbf]|\xb3[\x80-\x91])"
)
"""What Unicode 17 added, beyond U+FFFF as UTF-8 in blocks of 64: letters to tiktoken, nothing yet to gigatoken."""


class BpeEngine(Protocol):
    """Text to ids."""

    name: EngineName

    def encode(self, text: str, data: bytes) -> NDArray[np.uint32]:
        """The ids of a text; `data` is the same as UTF-8."""


def make_engine(name: EngineName, vocabulary: Vocabulary) -> BpeEngine:
    """The engine of this name.

    Raises:
        UserError: gigatoken is asked for, but not installed or not equal to tiktoken.
    """
    tiktoken = Tiktoken(vocabulary)
    if name == "tiktoken" or (name == "auto" and importlib.util.find_spec("gigatoken") is None):
        return tiktoken
    gigatoken = Gigatoken(vocabulary, tiktoken)
    truth, ids = (engine.encode(PROBE, PROBE.encode()) for engine in (tiktoken, gigatoken))
    if np.array_equal(truth, ids):
        return gigatoken
    if name == "gigatoken":
        raise UserError("the installed gigatoken gives other ids than tiktoken; choose the engine tiktoken")
    return tiktoken


class Tiktoken:
    """OpenAI's library."""

    name: EngineName = "tiktoken"

    LONG_SPACE = 100_000
    """White space from this length on is cut out: its engine gives up on a million characters of it."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        import tiktoken

        self._encoding = tiktoken.Encoding(
            "gpt2", pat_str=PATTERN, mergeable_ranks=vocabulary, special_tokens={"<|endoftext|>": len(vocabulary)}
        )

    def encode(self, text: str, data: bytes) -> NDArray[np.uint32]:
        """The ids of a text."""
        pieces = self._pieces(text) if self._may_have_long_space(text) else [text]
        ids = [self._encoding.encode_to_numpy(piece, disallowed_special=()) for piece in pieces]
        return ids[0] if len(ids) == 1 else np.concatenate(ids)

    def _may_have_long_space(self, text: str) -> bool:
        """A run of this length covers all of some window of half of it, and most windows end the search at once."""
        window = self.LONG_SPACE // 2
        return any(text[i : i + window].isspace() for i in range(0, len(text) - window + 1, window))

    def _pieces(self, text: str) -> Iterator[str]:
        """Cut before a long run of white space and before its last character, where words end anyway."""
        start = 0
        # Each run is looked at once: only where it begins, and never again when it proves too short.
        for run in regex.finditer(rf"(?<!\s)\s{{{self.LONG_SPACE},}}+", text):
            if run.end() == len(text):
                break  # at the end of the text, a run is one word
            yield text[start : run.start()]
            yield text[run.start() : run.end() - 1]
            start = run.end() - 1
        yield text[start:]


class Gigatoken:
    """A library with vector instructions. It is given no special tokens, for it would see them in any text.

    Args:
        vocabulary: The ids of all tokens.
        truth: Encodes the texts that hold characters newer than the library.
    """

    name: EngineName = "gigatoken"

    FRESH_BYTES = 1 << 28
    """It never forgets a word, some 100 bytes each; after this much text it starts anew."""

    def __init__(self, vocabulary: Vocabulary, truth: BpeEngine) -> None:
        self._vocabulary, self._truth = vocabulary, truth
        self._start()

    def _start(self) -> None:
        try:
            import gigatoken
        except ImportError:
            raise UserError("the engine gigatoken is not installed: pip install 'groundup[fast]'") from None

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "ranks"
            file.write_bytes(b"".join(b"%b %d\n" % (base64.b64encode(t), i) for t, i in self._vocabulary.items()))
            self._tokenizer = gigatoken.Tokenizer.from_tiktoken(file, pretokenizer="gpt2", special_tokens={})
        self._seen = 0

    def encode(self, text: str, data: bytes) -> NDArray[np.uint32]:
        """The ids of a text."""
        if not text.isascii() and _has_new(text, data):
            return self._truth.encode(text, data)
        self._seen += len(data)
        if self._seen > self.FRESH_BYTES:
            self._start()
        return self._tokenizer.encode(data)


def _has_new(text: str, data: bytes) -> bool:
    """Whether a text holds what Unicode 17 added. To look for the bytes that begin it costs next to nothing."""
    letters = (b"\xe0" in data or b"\xea" in data) and any(letter in text for letter in NEW_LETTERS)
    return letters or (b"\xf0" in data and bool(NEW_BLOCKS.search(data)))
