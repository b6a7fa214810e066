"""index.json: the shards of a dataset, what is in them, and their hashes."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.config.io import dump_json, from_dict, load_json, to_dict
from groundup.files.atomic import write_file
from groundup.files.layout import INDEX
from groundup.formats.document import SplitName

VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardInfo:
    """One shard."""

    file: str
    """Name in the dataset's folder."""
    split: SplitName
    n_tokens: int
    n_bytes: int
    """UTF-8 bytes of the text of the tokens; separators have none."""
    n_documents: int
    """Documents that end in the shard, among them the one whose end is held out; 0 where the tokenizer has no end."""
    max_id: int
    sha256: str
    sample: str = ""
    """SHA-256 of sixteen places of the file, for shards that are too large to be hashed at every start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetIndex:
    """The facts about a dataset that are known without opening a shard."""

    version: int = VERSION
    source: str
    settings: dict[str, str | int | float]
    """The settings that determine the bytes: source, tokenizer, shard size, split rule."""
    tokenizer_fingerprint: str
    vocab_size: int
    shards: tuple[ShardInfo, ...]
    skipped: dict[str, int]
    """Why records of the source were left out, and how many."""
    spelled_ends: int = 0
    """How often `<|endoftext|>` stood in the text, and was read as plain characters."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Characters that the tokenizer, one of characters, does not know: left out, so many times each."""
    unseparated: int = 0
    """Documents that run together, for the tokenizer has no end to set between them."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the hashes of all shards: equal fingerprints mean equal tokens in equal order."""
        return hashlib.sha256("".join(info.sha256 for info in self.shards).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write index.json atomically."""
        values = to_dict(self)
        write_file(folder / INDEX, dump_json({**values, "checksum": _checksum(values)}).encode())


def _checksum(values: dict[str, Any]) -> str:
    """SHA-256 of everything else in index.json: the hashes of the shards do not cover the counts stored here."""
    return hashlib.sha256(dump_json(values).encode()).hexdigest()


def load_index(folder: Path) -> DatasetIndex:
    """Read the index of a prepared folder.

    Raises:
        UserError: There is none, it is damaged, or it is of a newer version.
    """
    path = folder / INDEX
    if not path.is_file():
        raise UserError(f"{folder} holds no prepared data: there is no {INDEX} in it (see groundup prepare --help)")
    values = load_json(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} is not the index of a dataset")
    if values.get("version") != VERSION:
        raise UserError(f"{path} has version {values.get('version')}; this groundup reads version {VERSION}")
    if values.pop("checksum", None) != _checksum(values):
        raise UserError(f"{path} is damaged: its checksum is not that of its contents")
    index = from_dict(DatasetIndex, values, where=str(path))
    for info in index.shards:
        if not _NAME.fullmatch(info.file):
            raise UserError(f"{path} is damaged: {info.file!r} is not the name of a shard")
    return index
