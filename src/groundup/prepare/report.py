"""How far a preparation is, in numbers and in words."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from groundup.config.printable import counted
from groundup.data.index import DatasetIndex

Phase = Literal["list", "hash", "read", "tokenize", "assemble"]
_DOING: dict[Phase, str] = {
    "list": "listing",
    "hash": "hashing",
    "read": "reading",
    "tokenize": "tokenizing",
    "assemble": "writing shards",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a preparation is."""

    phase: Phase
    """Files are listed and hashed; before anything is tokenized, text is read for its alphabet and its split."""
    done: int
    """Files or documents so far; parts or shards that are made, now or by an earlier call."""
    total: int = 0
    """Parts or shards."""
    tokens: int = 0
    """Ids that this call has made so far."""
    n_bytes: int = 0
    """UTF-8 bytes of text that this call has tokenized so far."""

    @property
    def doing(self) -> str:
        """What is being done, and how often it was: tokenizing 3/7."""
        if self.total:
            return f"{_DOING[self.phase]} {self.done}/{self.total}"
        what = "document" if self.phase == "read" else "file"
        # The first one may take as long as all others: it comes when the work before it is over.
        return f"{_DOING[self.phase]} " + (f"the first {what}" if self.done == 1 else f"{self.done:,} {what}s")


Report = Callable[[Progress], None]


def listing(report: Report) -> Callable[[Literal["list", "hash"], int], None]:
    """What tells of files that are found and hashed, as `LocalFiles` does it."""
    return lambda phase, files: report(Progress(phase=phase, done=files))


def reading(report: Report) -> Callable[[int, int], None]:
    """What tells of documents that are read, as `read_all` does it."""
    return lambda documents, _: report(Progress(phase="read", done=documents))


class Spoken:
    """Progress in lines: the first after a second, then one every few; nothing for what is done at once.

    Args:
        say: Called with each line.
        about: What each begins with.
    """

    FIRST, EVERY = 1.0, 5.0

    def __init__(self, say: Callable[[str], None], about: str) -> None:
        self._say, self.about, self._next = say, about, time.monotonic() + self.FIRST

    def __call__(self, progress: Progress) -> None:
        """Say how far the work is, if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.EVERY
        tokens = f", {progress.tokens:,} tokens" if progress.total else ""
        self._say(f"{self.about}: {progress.doing}{tokens}")


def dataset_summary(index: DatasetIndex, folder: Path) -> str:
    """A finished dataset in a few lines."""
    lines = [f"{folder}: {index.source}, vocabulary {index.vocab_size:,}"]
    for split in ("train", "val"):
        infos = [info for info in index.shards if info.split == split]
        tokens = sum(info.n_tokens for info in infos)
        documents = sum(info.n_documents for info in infos)
        per_token = sum(info.n_bytes for info in infos) / max(1, tokens)
        many = f"{counted(documents, 'document')}, " if documents else ""
        shards = counted(len(infos), "shard")
        lines.append(f"  {split:<6}{counted(tokens, 'token')}, {many}{shards}, {per_token:.2f} bytes per token")
    lines += [f"  skipped {count:,}: {reason}" for reason, count in sorted(index.skipped.items())[:20]]
    if len(index.skipped) > 20:
        lines.append(f"  and {len(index.skipped) - 20} more reasons: see index.json")
    return "\n".join(lines)
