"""Corpora and tokenizers that are small enough to see through."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from groundup.corpora.documents import Document
from groundup.data.dataset import Split
from groundup.data.index import ShardInfo
from groundup.data.shards import write_shard
from groundup.prepare import work
from groundup.tokenizer.char import CharTokenizer

ALPHABET = "\n abcdefghijklmnopqrstuvwxyzäß漢"


class Separated(CharTokenizer):
    """Characters, and a separator between documents: the last symbol, which no text contains."""

    @property
    def eot_id(self) -> int:
        return len(self.symbols) - 1


@dataclass(frozen=True)
class Corpus:
    """A source in memory: its parts are numbers, their documents lie in a list."""

    texts: Sequence[Sequence[str | Document]]
    name: str = "corpus"
    trouble: dict[int, BaseException] = field(default_factory=dict)
    read_parts: list[int] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {"texts": repr(self.texts)}

    def parts(self) -> Sequence[int]:
        return range(len(self.texts))

    def read(self, part: int, skipped: dict[str, int]) -> Iterator[Document]:
        self.read_parts.append(part)
        for text in self.texts[part]:
            yield text if isinstance(text, Document) else Document(text)
        if part in self.trouble:
            raise self.trouble[part]


@pytest.fixture
def corpus() -> Callable[..., Corpus]:
    return Corpus


@pytest.fixture
def random_texts() -> Callable[..., list[list[str]]]:
    def make(seed: int, n_parts: int = 5, n_documents: int = 8, longest: int = 200) -> list[list[str]]:
        rng = np.random.default_rng(seed)
        symbols = list(ALPHABET)

        def text() -> str:
            return "".join(rng.choice(symbols, size=rng.integers(1, longest)))

        return [[text() for _ in range(rng.integers(n_documents + 1))] for _ in range(n_parts)]

    return make


@pytest.fixture
def separated(monkeypatch) -> Separated:
    """A tokenizer with a separator; preparations in this process find it again."""
    tokenizer = Separated([*ALPHABET, "\x1f"])
    monkeypatch.setattr(work, "_load_once", lambda path, fingerprint, engine: tokenizer)
    return tokenizer


@pytest.fixture
def make_split(tmp_path) -> Callable[..., Split]:
    """A function that writes shards of the given ids and opens them as one split."""

    def make(*shards: Any, vocab_size: int = 50_000, fingerprint: str = "aa" * 32) -> Split:
        infos = []
        for k, ids in enumerate(shards):
            file = f"{fingerprint[:4]}-{k:04d}.bin"
            header = write_shard(tmp_path / file, np.asarray(ids), vocab_size=vocab_size, fingerprint="bb" * 32)
            infos.append(
                ShardInfo(
                    file=file,
                    split="train",
                    n_tokens=len(ids),
                    n_bytes=len(ids),
                    n_documents=0,
                    max_id=header.max_id,
                    sha256="cc" * 32,
                )
            )
        return Split(tmp_path, tuple(infos), fingerprint)

    return make


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """A function that reads everything in a folder, by name."""
    return lambda folder: {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
