"""The one call that training makes: from a DataConfig to tokens on disk, prepared if they are not there yet."""

import difflib
import glob
import hashlib
import json
from pathlib import Path

from groundup.config.data import DataConfig
from groundup.config.errors import UsageError
from groundup.corpora.documents import Source
from groundup.corpora.hub import FINEWEB_EDU, HubDataset
from groundup.corpora.local_files import LocalFiles
from groundup.corpora.shakespeare import Shakespeare
from groundup.corpora.text_files import TextFiles
from groundup.corpora.tiny_shakespeare import TinyShakespeare
from groundup.data.dataset import TokenDataset
from groundup.files.layout import INDEX
from groundup.prepare.prepare import prepare
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.io import resolve_tokenizer

HUB = "hf:"
NAMES = ("shakespeare", "tiny-shakespeare", "fineweb-edu")


def open_corpus(config: DataConfig) -> TokenDataset:
    """Open the tokens that a config names; the first call prepares them below `cache_dir`.

    Raises:
        UserError: The text is not there, not text, or too short.
    """
    if config.source == "shards":
        assert config.path is not None
        return TokenDataset(config.path)
    source = make_source(config)
    # A character tokenizer follows from the text; others may change under their name.
    tokenizer = config.tokenizer if config.tokenizer == "char" else resolve_tokenizer(config.tokenizer).fingerprint
    described = json.dumps([source.name, source.describe(), tokenizer], sort_keys=True)
    key = hashlib.sha256(described.encode()).hexdigest()[:8]
    folder = config.cache_dir / f"{source.name}-{Path(config.tokenizer).stem}-{key}"
    if not (folder / INDEX).exists():
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


def find_source(
    name: str,
    *,
    cache_dir: Path,
    text_column: str = "text",
    subset: str | None = None,
    split: str = "train",
    stream: bool = False,
) -> Source:
    """The corpus that a word of the command line means.

    Args:
        name: One of NAMES, `hf:OWNER/NAME[@REVISION]`, a file, a folder, or a glob.
        cache_dir: Where downloads are kept.
        text_column: Key or column of the text.
        subset: Of a dataset of the Hub; None is its default, and sample-10BT for fineweb-edu.
        split: Of a dataset of the Hub.
        stream: Read a dataset of the Hub over the network.

    Raises:
        UsageError: It means nothing.
    """
    if name == "fineweb-edu" or name.startswith(HUB):
        dataset, usual = FINEWEB_EDU if name == "fineweb-edu" else (name.removeprefix(HUB), None)
        return HubDataset(
            dataset, subset=subset or usual, split=split, text_column=text_column, cache=cache_dir, stream=stream
        )
    if subset is not None or split != "train" or stream:
        raise UsageError(f"--subset, --split and --stream are for fineweb-edu and {HUB}OWNER/NAME, not for {name}")
    if name == "shakespeare":
        return Shakespeare()
    if name == "tiny-shakespeare":
        return TinyShakespeare(None, cache_dir)
    if not Path(name).exists() and not glob.has_magic(name):
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"name {', '.join(NAMES)} or {HUB}OWNER/NAME instead"
        raise UsageError(f"{name!r} is no file, folder or glob; {hint}")
    return LocalFiles(name, text_column)


def make_tokenizer(name: str, source: Source) -> Tokenizer:
    """The tokenizer of this name; a character tokenizer takes its alphabet from the source."""
    if name == "char":
        return CharTokenizer.from_text(d.text for part in source.parts() for d in source.read(part, {}))
    return resolve_tokenizer(name)
