"""Corpora, tokenizers and models that are small enough to see through."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.checkpoint.model_folder import save_model
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.data.dataset import Split
from groundup.data.index import ShardInfo
from groundup.data.shards import write_shard
from groundup.formats.document import Document
from groundup.model.build import Transformer, build_model
from groundup.model.init import init_weights
from groundup.prepare import work
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.gpt2 import GPT2Tokenizer, load_gpt2

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


PROPORTIONS = {
    # A quarter of the layers, all heads, four coordinates a head.
    "gpt2": (3, 12, 48),
    "gpt2-medium": (6, 16, 64),
    "gpt2-large": (9, 20, 80),
    "gpt2-xl": (12, 25, 100),
}


def awake(model, scale=0.1):
    """Random weights large enough that every bias and gain matters."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * scale)
    return model.eval()


@pytest.fixture
def letters():
    """27 symbols, one of them of two bytes in UTF-8."""
    return CharTokenizer("\n abcdefghijklmnopqrstuvwxé")


@pytest.fixture(scope="session")
def gpt2() -> GPT2Tokenizer:
    """GPT-2's own tokenizer, where its vocabulary is on this machine."""
    try:
        return load_gpt2()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture
def make_model():
    def make(*, n_layer=2, n_head=2, n_embd=16, block_size=32, vocab_size=27, **options) -> Transformer:
        config = (ModernConfig if "position" in options else GPTConfig)(
            n_layer=n_layer, n_head=n_head, n_embd=n_embd, block_size=block_size, vocab_size=vocab_size, **options
        )
        return awake(init_weights(build_model(config), seed=3))

    return make


@pytest.fixture(params=PROPORTIONS)
def shape(request):
    return dict(zip(("n_layer", "n_head", "n_embd"), PROPORTIONS[request.param], strict=True))


@pytest.fixture
def make_hf():
    """A random GPT-2 of transformers."""
    transformers = pytest.importorskip("transformers")

    def make(*, n_layer=2, n_head=2, n_embd=16, n_positions=32, vocab_size=27, **options):
        config = transformers.GPT2Config(
            n_layer=n_layer, n_head=n_head, n_embd=n_embd, n_positions=n_positions, vocab_size=vocab_size, **options
        )
        return awake(transformers.GPT2LMHeadModel(config))

    return make


@pytest.fixture
def folder(tmp_path, make_model, letters):
    """A model folder of ours."""
    save_model(tmp_path / "model", make_model(), letters, {"step": 7, "val_loss": 1.5, "data": "shakespeare"})
    return tmp_path / "model"
