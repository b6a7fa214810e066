"""Which text is learned from, and how it becomes token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from groundup.config.errors import UsageError
from groundup.config.printable import typed

SourceName = Literal["shakespeare", "tiny-shakespeare", "text", "shards"]
ValRule = Literal["documents", "head", "hash"]
BadFiles = Literal["refuse", "skip"]

IGNORE = -100
"""Targets of this value do not count: the convention of PyTorch's cross-entropy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadConfig:
    """How files become documents, for every command that reads text."""

    FLAGS: ClassVar[str] = "--"
    """How the flags of these values begin, for advice."""
    text_column: str = "text"
    """Key or column of the text in .jsonl, .json, .csv, .tsv and .parquet."""
    separator: str = ""
    r"""What stands between documents in plain text, such as <|endoftext|> or \n; unless given, a file is one."""
    text_suffixes: tuple[str, ...] = ()
    """Endings of more files to read as plain text, such as .py .pgn; .txt and .md always are."""
    bad_files: BadFiles = "refuse"
    """refuse: a file that cannot be read ends the work, all of them named; skip: leave them out, counted."""

    def __post_init__(self) -> None:
        """Check the suffixes, and take texts as they were typed."""
        object.__setattr__(self, "text_column", typed(self.text_column))
        object.__setattr__(self, "separator", typed(self.separator))
        if any("\ud800" <= character <= "\udfff" for character in self.separator):
            raise UsageError(f"separator must be valid UTF-8, got {self.separator!r}")
        for suffix in self.text_suffixes:
            if not suffix.startswith(".") or len(suffix) < 2 or "/" in suffix:
                raise UsageError(f"a suffix begins with a dot, such as .py; got {suffix!r}")

    @property
    def between(self) -> str:
        r"""The separator as it stands in the text: \n and \t are hard to type."""
        return self.separator.replace("\\n", "\n").replace("\\t", "\t")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig(ReadConfig):
    """One corpus and one tokenizer."""

    FLAGS: ClassVar[str] = "--data."

    source: SourceName = "shakespeare"
    """shakespeare: the plays; tiny-shakespeare: nanoGPT's file; text: data.path; shards: a prepared data.path."""
    path: Path | None = None
    """A local file, folder or glob: required by text and shards, replaces the download for tiny-shakespeare."""
    tokenizer: str = "char"
    """char, gpt2, or the path of a tokenizer.json; ignored for shards, which carry their own."""
    cache_dir: Path = Path("data")
    """Where prepared shards and downloads are kept."""
    val_fraction: float = 0.1
    """Share of the text held out for validation: whole documents, or the end of the largest where they are few."""

    def __post_init__(self) -> None:
        """Check the combination."""
        ReadConfig.__post_init__(self)
        if self.source in ("text", "shards") and self.path is None:
            raise UsageError(f"data.source {self.source} needs --data.path")
        if self.source == "shakespeare" and self.path is not None:
            raise UsageError("data.source shakespeare takes no path; use --data.source text --data.path FILE")
        if not 0 < self.val_fraction < 1:
            raise UsageError(f"data.val_fraction must be between 0 and 1, got {self.val_fraction}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardConfig:
    """How documents are laid out in shards. Every value decides bytes on the disk."""

    shard_tokens: int = 100_000_000
    """Ids per shard."""
    val_rule: ValRule = "documents"
    """Of what the source does not split: whole documents or the end of the largest, each by its hash, or the first."""
    val_fraction: float = 0.01
    """Share of validation; head takes no more than one shard."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.shard_tokens < 1:
            raise UsageError(f"shard_tokens must be at least 1, got {self.shard_tokens}")
        if not 0 < self.val_fraction < 1:
            raise UsageError(f"val_fraction must be between 0 and 1, got {self.val_fraction}")
