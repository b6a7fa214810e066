"""The two kinds of work in a preparation. Each call reads its own input and writes its own file.

`tokenize_part` turns one part of a source into raw ids; `assemble_shard` copies ranges of those into one shard. Both
can run in any process of any machine that sees the folder, in any order and again after a crash: a result is written
under a temporary name, fsynced and renamed, and one that is there is not made again. What travels between processes is
a part's description and a few numbers, never text or ids.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from groundup.config.errors import UserError
from groundup.config.io import dump_json, from_dict, load_json, to_dict
from groundup.data.documents import Document, Part, Source, SplitName
from groundup.data.index import ShardInfo
from groundup.data.shards import HEADER_BYTES, ShardHeader, id_dtype
from groundup.runtime.files import atomic_stream, sha256_file, write_file
from groundup.tokenizer.base import Tokenizer

COPY_TOKENS = 4 << 20
"""Ids copied at a time: memory stays flat whatever the size of a shard."""
FLUSH_TOKENS = 1 << 20
"""Ids gathered before they are written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult:
    """What one part became."""

    train_tokens: int = 0
    val_tokens: int = 0
    text_bytes: int = 0
    """UTF-8 bytes of text read."""
    n_documents: int = 0
    skipped: dict[str, int]
    """Why records were left out, and how many."""


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker knows: the source, the tokenizer and where results go."""

    source: Source
    tokenizer: Tokenizer
    folder: Path
    """`.work` in the dataset's folder."""
    hash_fraction: float
    """Share of documents that their hash puts into validation; 0 leaves unlabeled documents to training."""

    def part_file(self, number: int, split: SplitName) -> Path:
        """Raw ids of one part."""
        return self.folder / f"part-{number:06d}.{split}"

    def part_result(self, number: int) -> PartResult | None:
        """The finished result of a part, or None."""
        path = self.folder / f"part-{number:06d}.json"
        return from_dict(PartResult, load_json(path), where=str(path)) if path.exists() else None


def tokenize_part(work: Work, number: int, part: Part) -> PartResult:
    """Tokenize the documents of one part into `part-N.train` and `part-N.val`.

    Raises:
        UserError: The part cannot be read, or the disk refuses.
    """
    if done := work.part_result(number):
        return done
    dtype = id_dtype(work.tokenizer.vocab_size)
    counts = {"train": 0, "val": 0}
    skipped: dict[str, int] = {}
    text_bytes = n_documents = 0
    with (
        atomic_stream(work.part_file(number, "train")) as train,
        atomic_stream(work.part_file(number, "val")) as val,
    ):
        out = {"train": train, "val": val}
        waiting: dict[SplitName, list[NDArray[np.unsignedinteger]]] = {"train": [], "val": []}
        sizes = {"train": 0, "val": 0}
        for document in work.source.read(part, skipped):
            split = _split_of(document, work.hash_fraction)
            ids = _encode(work.tokenizer, document, dtype)
            waiting[split].append(ids)
            sizes[split] += len(ids)
            counts[split] += len(ids)
            text_bytes += len(document.text.encode(errors="surrogatepass"))
            n_documents += 1
            if sizes[split] >= FLUSH_TOKENS:
                out[split].write(np.concatenate(waiting[split]).tobytes())
                waiting[split].clear()
                sizes[split] = 0
        for split in ("train", "val"):
            if waiting[split]:
                out[split].write(np.concatenate(waiting[split]).tobytes())
    result = PartResult(
        train_tokens=counts["train"],
        val_tokens=counts["val"],
        text_bytes=text_bytes,
        n_documents=n_documents,
        skipped=skipped,
    )
    write_file(work.folder / f"part-{number:06d}.json", dump_json(to_dict(result)).encode())
    return result


def _encode(tokenizer: Tokenizer, document: Document, dtype: np.dtype[Any]) -> NDArray[np.unsignedinteger]:
    """Ids of one document, closed by the separator where there is one."""
    ids = tokenizer.encode_array(document.text)
    if tokenizer.eot_id is None:
        return ids.astype(dtype)
    out = np.empty(len(ids) + 1, dtype=dtype)
    out[:-1] = ids
    out[-1] = tokenizer.eot_id
    return out


def _split_of(document: Document, hash_fraction: float) -> SplitName:
    """Where a document goes: where its source says, else by the hash of its text."""
    if document.split is not None:
        return document.split
    if hash_fraction:
        digest = hashlib.sha256(document.text.encode(errors="surrogatepass")).digest()
        if int.from_bytes(digest[:8], "big") < hash_fraction * 2**64:
            return "val"
    return "train"


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard: a range of a split's stream, as pieces of part files."""

    file: str
    split: SplitName
    pieces: tuple[tuple[str, int, int], ...]
    """(part file, first id, number of ids), in order."""

    @property
    def n_tokens(self) -> int:
        """Ids in the shard."""
        return sum(count for _, _, count in self.pieces)


def assemble_shard(work: Work, plan: ShardPlan, bytes_of_id: NDArray[np.int64]) -> ShardInfo:
    """Copy the pieces of a shard together, under its final name.

    Args:
        work: What every worker knows.
        plan: Which shard.
        bytes_of_id: UTF-8 bytes that each id spells, for the counts in the index.

    Raises:
        UserError: The disk refuses, or a part file is not what its result says.
    """
    noted = work.folder / f"{plan.file}.json"
    target = work.folder.parent / plan.file
    if noted.exists() and target.exists():
        return from_dict(ShardInfo, load_json(noted), where=str(noted))
    dtype = id_dtype(work.tokenizer.vocab_size)
    n_bytes = n_documents = max_id = 0
    with atomic_stream(target) as out:
        out.write(bytes(HEADER_BYTES))
        for name, start, count in plan.pieces:
            for at in range(start, start + count, COPY_TOKENS):
                ids = np.fromfile(
                    work.folder / name,
                    dtype=dtype,
                    count=min(COPY_TOKENS, start + count - at),
                    offset=at * dtype.itemsize,
                )
                if len(ids) != min(COPY_TOKENS, start + count - at):
                    raise UserError(f"{work.folder / name} is shorter than noted; remove {work.folder} and prepare again")
                n_bytes += int(bytes_of_id[ids].sum())
                max_id = max(max_id, int(ids.max()))
                if work.tokenizer.eot_id is not None:
                    n_documents += int((ids == work.tokenizer.eot_id).sum())
                out.write(ids.tobytes())
        header = ShardHeader(plan.n_tokens, work.tokenizer.vocab_size, max_id, work.tokenizer.fingerprint)
        out.seek(0)
        out.write(header.pack())
    info = ShardInfo(
        file=plan.file,
        split=plan.split,
        n_tokens=plan.n_tokens,
        n_bytes=n_bytes,
        n_documents=n_documents,
        max_id=max_id,
        sha256=sha256_file(target),
    )
    write_file(noted, dump_json(to_dict(info)).encode())
    return info
