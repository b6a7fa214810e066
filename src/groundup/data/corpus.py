"""The one call that training makes: from a DataConfig to tokens on disk, prepared if they are not there yet."""

import hashlib
import json
from pathlib import Path

from groundup.config.data import DataConfig
from groundup.data.dataset import TokenDataset
from groundup.data.documents import Source
from groundup.data.prepare import prepare
from groundup.data.shakespeare import Shakespeare
from groundup.data.text_files import TextFiles
from groundup.data.tiny_shakespeare import TinyShakespeare
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.io import load_tokenizer


def open_corpus(config: DataConfig) -> TokenDataset:
    """Open the tokens that a config names; the first call prepares them below `cache_dir`.

    Raises:
        UserError: The text is not there, not text, or too short.
    """
    if config.source == "shards":
        assert config.path is not None
        return TokenDataset(config.path)
    source = make_source(config)
    described = json.dumps([source.name, source.describe(), config.tokenizer], sort_keys=True)
    key = hashlib.sha256(described.encode()).hexdigest()[:8]
    folder = config.cache_dir / f"{source.name}-{Path(config.tokenizer).stem}-{key}"
    if not (folder / "index.json").exists():
        prepare(source, make_tokenizer(config.tokenizer, source), folder)
    return TokenDataset(folder)


def make_source(config: DataConfig) -> Source:
    """The corpus a config names."""
    if config.source == "shakespeare":
        return Shakespeare(config.val_fraction)
    if config.source == "tiny-shakespeare":
        return TinyShakespeare(config.path, config.cache_dir)
    assert config.path is not None
    return TextFiles(config.path, config.val_fraction)


def make_tokenizer(name: str, source: Source) -> Tokenizer:
    """The tokenizer of this name; a character tokenizer takes its alphabet from the source."""
    if name == "char":
        return CharTokenizer.from_text(d.text for part in source.parts() for d in source.read(part, {}))
    return load_tokenizer(Path(name))
