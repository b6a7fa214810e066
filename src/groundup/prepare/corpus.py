"""The one call that training makes: from a DataConfig to tokens on disk, prepared if they are not there yet."""

import difflib
import glob
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from groundup.config.data import DataConfig, ReadConfig, ShardConfig
from groundup.config.errors import UsageError, UserError
from groundup.corpora.hub import FINEWEB_EDU, HubDataset
from groundup.corpora.local_files import LocalFiles
from groundup.corpora.patterns import nothing_there
from groundup.corpora.shakespeare import Shakespeare
from groundup.corpora.source import Source, read_all
from groundup.corpora.tiny_shakespeare import TinyShakespeare
from groundup.data.dataset import TokenDataset
from groundup.data.index import load_index
from groundup.files.hub_listing import HUB
from groundup.files.layout import INDEX
from groundup.prepare.prepare import prepare
from groundup.prepare.report import Report, Spoken, listing, reading
from groundup.prepare.surprises import surprises, unlike
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import CharTokenizer
from groundup.tokenizer.io import resolve_tokenizer

HOLD_OUT = 3
"""Version of the rules by which text files are read and split: data of another version is prepared again."""
HELD_OUT_BEFORE = 2
"""The version before, whose data a run goes on with that began with it."""
NAMES = ("shakespeare", "tiny-shakespeare", "fineweb-edu")


def open_corpus(
    config: DataConfig,
    tokenizer: Tokenizer | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    block_size: int = 0,
    learned: str = "",
    instead: str = "--data.path",
) -> TokenDataset:
    """Open the tokens that a config names; the first call prepares them below `cache_dir`.

    Args:
        config: Corpus and tokenizer.
        tokenizer: A run's own, for the file that config names may be gone, or another by now; None reads that file.
        say: Called with lines that a person should know of the data: progress of a preparation, and what may surprise.
        block_size: The model's context, by which a validation split is too small; 0 is unknown.
        learned: Fingerprint of the data of a run that has begun, which may have been prepared by older rules.
        instead: The flag that takes a local copy of what is downloaded, for the message.

    Raises:
        UserError: The text is not there, not text, or too short.
    """
    if config.source == "shards":
        assert config.path is not None
        dataset = TokenDataset(config.path)
    else:
        spoken = Spoken(say, f"{config.path}" if config.path else config.source)
        source = make_source(config, spoken, instead)
        # A character tokenizer follows from the text; others may change under their name.
        chosen = None if config.tokenizer == "char" else tokenizer or resolve_tokenizer(config.tokenizer)
        folder = prepared_folder(config, source, chosen)
        if learned:
            older = prepared_folder(config, source, chosen, HELD_OUT_BEFORE)
            folder = older if (older / INDEX).exists() and load_index(older).fingerprint == learned else folder
        if not (folder / INDEX).exists():
            layout = ShardConfig(val_fraction=config.val_fraction)
            spoken.about = f"preparing {folder}"
            chosen = chosen or make_tokenizer("char", source, spoken)
            prepare(source, chosen, folder, layout, progress=spoken)
        dataset = TokenDataset(folder)
    say(dataset.check())
    for line in (*surprises(dataset.index, block_size), *unlike(dataset)):
        say(line)
    return dataset


def prepared_folder(
    config: DataConfig, source: Source, tokenizer: Tokenizer | None = None, hold_out: int = HOLD_OUT
) -> Path:
    """Where the shards of a corpus are, or will be.

    Args:
        config: Corpus and tokenizer.
        source: The corpus.
        tokenizer: None is one of characters, which follows from the text.
        hold_out: Version of the rules.
    """
    facts: list[Any] = [source.name, source.describe(), tokenizer.fingerprint if tokenizer else "char"]
    if isinstance(source, LocalFiles):  # the others have a split of their own
        facts += [config.val_fraction, hold_out]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return config.cache_dir / f"{source.name}-{Path(config.tokenizer).stem}-{key}"


def refuse_moved(config: DataConfig, advice: str) -> None:
    """See that the text of a run that has begun lies where it lay.

    Raises:
        UserError: It does not; the message ends with the advice.
    """
    if config.source == "text" and config.path and not glob.has_magic(str(config.path)) and not config.path.exists():
        where = "there any more;" if config.path.is_absolute() else f"in {Path.cwd()}; go to where the run began, or"
        raise UserError(f"{config.path}, the text that the run learns, is not {where} {advice}")


def make_source(config: DataConfig, progress: Report = lambda _: None, instead: str = "--data.path") -> Source:
    """The corpus a config names; listing its files tells of its progress. For `instead` see `open_corpus`."""
    if config.source == "shakespeare":
        return Shakespeare(config.val_fraction)
    if config.source == "tiny-shakespeare":
        return TinyShakespeare(config.path, config.cache_dir, instead=instead)
    assert config.path is not None
    return LocalFiles(str(config.path), config, listing(progress))


def find_source(
    name: str,
    *,
    cache_dir: Path,
    config: ReadConfig | None = None,
    subset: str | None = None,
    split: str = "train",
    stream: bool = False,
    progress: Report = lambda _: None,
) -> Source:
    """The corpus that a word of the command line means.

    Args:
        name: One of NAMES, `hf:OWNER/NAME[@REVISION]`, a file, a folder, or a glob.
        cache_dir: Where downloads are kept.
        config: How files are read.
        subset: Of a dataset of the Hub; None is its default, and sample-10BT for fineweb-edu.
        split: Of a dataset of the Hub.
        stream: Read a dataset of the Hub over the network.
        progress: Called for files that are listed.

    Raises:
        UserError: It means nothing.
    """
    if name == "fineweb-edu" or name.startswith(HUB):
        dataset, usual = FINEWEB_EDU if name == "fineweb-edu" else (name.removeprefix(HUB), None)
        return HubDataset(dataset, subset=subset or usual, split=split, config=config, cache=cache_dir, stream=stream)
    if subset is not None or split != "train" or stream:
        raise UsageError(f"--subset, --split and --stream are for fineweb-edu and {HUB}OWNER/NAME, not for {name}")
    if name == "shakespeare":
        return Shakespeare()
    if name == "tiny-shakespeare":
        return TinyShakespeare(None, cache_dir, instead="its path in place of the word")
    if not name or not (Path(name).exists() or glob.has_magic(name)):
        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"name {', '.join(NAMES)} or {HUB}OWNER/NAME instead"
        raise nothing_there(name, hint, no_name=f"{name!r} is no file, folder or glob; {hint}")
    return LocalFiles(name, config, listing(progress))


def make_tokenizer(name: str, source: Source, progress: Report = lambda _: None) -> Tokenizer:
    """The tokenizer of this name; a character tokenizer takes its alphabet from the source, and tells of its progress.

    Its vocabulary has an end of documents where there are several; a single text, and the plays, which are read as one,
    have none to learn.

    Raises:
        UserError: Some of the source cannot be read, or there is no text in it.
    """
    if name != "char":
        return resolve_tokenizer(name)
    alphabet: set[str] = set()
    documents = 0
    skipped: dict[str, int] = {}
    for _, document in read_all(source, source.parts(), skipped, reading(progress)):
        alphabet.update(document.text)
        documents += document.ends and document.split is None
    if not alphabet:
        left_out = ", ".join(f"{count:,} times {reason}" for reason, count in sorted(skipped.items())[:5])
        raise UserError(
            f"there is no text to learn from in {getattr(source, 'pattern', source.name)}"
            + (f"; left out: {left_out}" if left_out else "")
        )
    return CharTokenizer.from_text(alphabet, separates=documents > 1)
