"""Which text is learned from, and how it becomes token ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.config.errors import UsageError

SourceName = Literal["shakespeare", "tiny-shakespeare", "text", "shards"]
ValRule = Literal["head", "hash"]

IGNORE = -100
"""Targets of this value do not count: the convention of PyTorch's cross-entropy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """One corpus and one tokenizer."""

    source: SourceName = "shakespeare"
    """shakespeare: the plays; tiny-shakespeare: nanoGPT's file; text: data.path; shards: a prepared data.path."""
    path: Path | None = None
    """A local file or folder: required by text and shards, replaces the download for tiny-shakespeare."""
    tokenizer: str = "char"
    """char, gpt2, or the path of a tokenizer.json; ignored for shards, which carry their own."""
    cache_dir: Path = Path("data")
    """Where prepared shards and downloads are kept."""
    val_fraction: float = 0.1
    """Share of the text held out for validation."""

    def __post_init__(self) -> None:
        """Check the combination."""
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
    val_rule: ValRule = "head"
    """Where the source tells no split, validation is the first ids (head), or documents chosen by their hash (hash)."""
    val_fraction: float = 0.01
    """Share of validation; head takes no more than one shard."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.shard_tokens < 1:
            raise UsageError(f"shard_tokens must be at least 1, got {self.shard_tokens}")
        if not 0 < self.val_fraction < 1:
            raise UsageError(f"val_fraction must be between 0 and 1, got {self.val_fraction}")
