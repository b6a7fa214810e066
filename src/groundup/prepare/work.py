"""The two kinds of work in a preparation. Each call reads its own input and writes its own file.

`tokenize_part` turns one part of a source into files of raw ids; `assemble_shard` copies ranges of those into one
shard. Both can run in any process of any machine that sees the folder, in any order and again after a crash: a result
is written under a temporary name, fsynced and renamed, and one that is there is not made again. What travels between
processes is a part's description and a few numbers, never text or ids.
"""

import contextlib
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from groundup.config.errors import UserError, reading
from groundup.config.io import dump_json, from_dict, load_json, to_dict
from groundup.corpora.source import Part, Source
from groundup.data.index import ShardInfo
from groundup.data.shards import HEADER_BYTES, ShardHeader, id_dtype, sample_hash
from groundup.files.atomic import atomic_stream, write_file
from groundup.files.layout import TOKENIZER
from groundup.files.manifest import sha256_file
from groundup.formats.document import Document, SplitName, usable
from groundup.prepare.hold_out import HoldOut
from groundup.tokenizer.base import END_OF_TEXT, Tokenizer
from groundup.tokenizer.char import only_known
from groundup.tokenizer.gpt2 import GPT2Tokenizer, load_gpt2
from groundup.tokenizer.gpt2_engines import EngineName
from groundup.tokenizer.io import load_tokenizer

COPY_TOKENS = 1 << 20
"""Ids copied at a time: memory stays flat whatever the size of a shard."""
FLUSH_TOKENS = 1 << 18
"""Ids gathered before they are written."""
PartIds = Literal[SplitName, "last"]
"""What a part's ids are for: a split, or the end of training's."""


def part_name(number: int, ids: PartIds) -> str:
    """The file of a part's raw ids."""
    return f"part-{number:06d}.{ids}"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartResult:
    """What one part became."""

    train_tokens: int = 0
    val_tokens: int = 0
    last_tokens: int = 0
    """Ids of the training split that come behind those of all parts: of the document whose end is validation."""
    n_documents: int = 0
    n_bytes: int = 0
    """UTF-8 bytes of the documents."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Why records were left out, and how many."""
    spelled_ends: int = 0
    """How often `<|endoftext|>` stood in the text, and was read as the thirteen characters that it is there."""
    unknown: dict[str, int] = field(default_factory=dict)
    """Characters that the tokenizer, one of characters, does not know: left out, so many times each."""

    @property
    def n_tokens(self) -> int:
        """Ids in both splits."""
        return self.train_tokens + self.val_tokens + self.last_tokens


@dataclass(frozen=True, slots=True)
class PartFailed:
    """A part that its source could not read. Other parts go on; the preparation fails in the end."""

    error: UserError


@dataclass(frozen=True, slots=True)
class Work:
    """What every worker knows. The tokenizer lies in the folder: the file that is published makes the ids."""

    source: Source
    folder: Path
    """`.work` in the dataset's folder."""
    vocab_size: int
    eot_id: int | None
    fingerprint: str
    """Of the tokenizer."""
    held_out: HoldOut
    """Which documents are validation, where the source does not say."""
    engine: EngineName = "auto"
    """What GPT-2's tokenizer encodes with, in every worker; the ids are the same."""

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Type of an id on the disk."""
        return id_dtype(self.vocab_size)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded once in every process."""
        return _load_once(self.folder / TOKENIZER, self.fingerprint, self.engine)

    def part_file(self, number: int, ids: PartIds) -> Path:
        """Raw ids of one part."""
        return self.folder / part_name(number, ids)

    def part_result(self, number: int) -> PartResult | None:
        """The finished result of a part; None when it is not there, or not with all of its ids."""
        path = self.folder / f"part-{number:06d}.json"
        if not path.exists():
            return None
        result = from_dict(PartResult, load_json(path), where=str(path))
        for file, count in (
            (self.part_file(number, "train"), result.train_tokens),
            (self.part_file(number, "val"), result.val_tokens),
            (self.part_file(number, "last"), result.last_tokens),
        ):
            if count and _size(file) != count * self.dtype.itemsize:
                return None
        return result


def engine_of(tokenizer: Tokenizer) -> EngineName:
    """What a tokenizer encodes with; a saved one does not say."""
    return tokenizer.engine if isinstance(tokenizer, GPT2Tokenizer) else "auto"


@functools.lru_cache(maxsize=1)
def _load_once(path: Path, fingerprint: str, engine: EngineName) -> Tokenizer:
    tokenizer = load_tokenizer(path)
    if engine != "auto" and isinstance(tokenizer, GPT2Tokenizer):
        tokenizer = load_gpt2(engine=engine)
    if tokenizer.fingerprint != fingerprint:
        raise UserError(f"{path} is not the tokenizer that this preparation began with; remove {path.parent}")
    return tokenizer


def _size(path: Path) -> int:
    """Bytes in a file, -1 when there is none."""
    return path.stat().st_size if path.exists() else -1


class _IdFile:
    """Collects ids and writes them in large pieces; the file is not made before the first of them."""

    def __init__(self, path: Path, work: Work, stack: contextlib.ExitStack) -> None:
        self._path, self._work, self._stack = path, work, stack
        self._file: BinaryIO | None = None
        self._pieces: list[NDArray[np.unsignedinteger]] = []
        self._waiting = 0
        self.written = 0

    def add(self, ids: NDArray[np.unsignedinteger]) -> None:
        self._pieces.append(ids)
        self._waiting += len(ids)
        if self._waiting >= FLUSH_TOKENS:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        ids = np.concatenate(self._pieces)
        if (largest := int(ids.max())) >= self._work.vocab_size:
            raise ValueError(f"the tokenizer made id {largest} with a vocabulary of {self._work.vocab_size}")
        if self._file is None:
            self._file = self._stack.enter_context(atomic_stream(self._path))
        self._file.write(ids.astype(self._work.dtype).data)
        self.written += len(ids)
        self._pieces.clear()
        self._waiting = 0


def tokenize_part(work: Work, number: int, part: Part) -> PartResult | PartFailed:
    """Tokenize the documents of one part into `part-N.train` and `part-N.val`, each closed by the separator.

    What comes behind those of all parts, and is not closed, goes into `part-N.last`.

    Raises:
        UserError: The disk refuses.
    """
    try:
        result = _tokenize(work, number, part)
    except _UnreadableError as error:
        return PartFailed(error.error)
    write_file(work.folder / f"part-{number:06d}.json", dump_json(to_dict(result)).encode())
    return result


def _tokenize(work: Work, number: int, part: Part) -> PartResult:
    tokenizer = work.tokenizer()
    end = np.array([] if work.eot_id is None else [work.eot_id], dtype=np.uint32)
    skipped: dict[str, int] = {}
    unknown: Counter[str] = Counter()
    n_bytes = n_documents = spelled = 0
    with contextlib.ExitStack() as stack:
        train = _IdFile(work.part_file(number, "train"), work, stack)
        val = _IdFile(work.part_file(number, "val"), work, stack)
        last = _IdFile(work.part_file(number, "last"), work, stack)
        for place, document in enumerate(_documents(work, part, skipped)):
            ours = last if (number, place) in work.held_out.last else train
            for piece in work.held_out.split(number, place, document):
                file = val if piece.split == "val" else ours
                file.add(tokenizer.encode_array(only_known(tokenizer, piece.text, unknown)))
                if piece.ends:
                    file.add(end)
            n_bytes += _utf8_size(document.text)
            n_documents += document.ends
            spelled += document.text.count(END_OF_TEXT)
        for file in (train, val, last):
            file.flush()
    return PartResult(
        train_tokens=train.written,
        val_tokens=val.written,
        last_tokens=last.written,
        n_documents=n_documents,
        n_bytes=n_bytes,
        skipped=skipped,
        spelled_ends=spelled,
        unknown=dict(unknown),
    )


class _UnreadableError(Exception):
    """The source failed, as opposed to the tokenizer or the disk that is written to."""

    def __init__(self, error: UserError) -> None:
        super().__init__()
        self.error = error


def _documents(work: Work, part: Part, skipped: dict[str, int]) -> Iterator[Document]:
    """The usable documents of a part."""
    try:
        yield from usable(work.source.read(part, skipped), skipped)
    except UserError as error:
        raise _UnreadableError(error) from error
    except OSError as error:
        fault = f"cannot read {part} of {work.source.name}: {error.strerror or error}"
        raise _UnreadableError(UserError(fault)) from error


def _utf8_size(text: str) -> int:
    """Bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard: a range of a split's stream, as pieces of part files."""

    file: str
    split: SplitName
    pieces: tuple[tuple[str, int, int], ...]
    """(part file, first id, number of ids), in order."""
    is_cut: bool = False
    """Whether its last document has no end: that is validation."""

    @property
    def n_tokens(self) -> int:
        """Ids in the shard."""
        return sum(count for _, _, count in self.pieces)


def find_shard(work: Work, plan: ShardPlan) -> ShardInfo | None:
    """What is known of a shard that is made; None when it is not there, or not in full."""
    noted = work.folder / f"{plan.file}.json"
    if not noted.exists():
        return None
    size = HEADER_BYTES + plan.n_tokens * work.dtype.itemsize
    if size not in (_size(work.folder / plan.file), _size(work.folder.parent / plan.file)):
        return None
    return from_dict(ShardInfo, load_json(noted), where=str(noted))


def assemble_shard(work: Work, bytes_of_id: NDArray[np.int64], plan: ShardPlan, *, alone: bool) -> ShardInfo | None:
    """Copy the pieces of a shard together.

    Args:
        work: What every worker knows.
        bytes_of_id: UTF-8 bytes that each id spells, for the counts in the index.
        plan: Which shard.
        alone: There is no other task. Who holds the shard then is left of a killed call: it is waited for, as nobody
            else would come back for the shard.

    Returns:
        What the index will say of it; None when another task is making it.

    Raises:
        UserError: The disk refuses, or a part file is not what its result says.
    """
    try:
        with FileLock(work.folder / f"{plan.file}.lock").acquire(timeout=-1 if alone else 1):
            return find_shard(work, plan) or _assemble(work, bytes_of_id, plan)
    except Timeout:
        return None


def _assemble(work: Work, bytes_of_id: NDArray[np.int64], plan: ShardPlan) -> ShardInfo:
    target = work.folder / plan.file
    counts = np.zeros(work.vocab_size, dtype=np.int64)
    with atomic_stream(target) as out:
        out.write(bytes(HEADER_BYTES))
        for name, start, count in plan.pieces:
            for ids in _read_pieces(work.folder / name, work.dtype, start, count):
                if int(ids.max()) >= work.vocab_size:
                    raise UserError(f"{work.folder / name} is damaged; remove {work.folder} and prepare again")
                counts += np.bincount(ids, minlength=work.vocab_size)
                out.write(ids.data)
        # The histogram of a shard is all that the index needs to know of it.
        largest = int(counts.nonzero()[0].max(initial=0))
        out.seek(0)
        out.write(ShardHeader(plan.n_tokens, work.vocab_size, largest, work.fingerprint).pack())
    info = ShardInfo(
        file=plan.file,
        split=plan.split,
        n_tokens=plan.n_tokens,
        n_bytes=int(counts @ bytes_of_id),
        n_documents=0 if work.eot_id is None else int(counts[work.eot_id]) + plan.is_cut,
        max_id=largest,
        sha256=sha256_file(target),
        sample=sample_hash(target),
    )
    write_file(work.folder / f"{plan.file}.json", dump_json(to_dict(info)).encode())
    return info


def _read_pieces(
    path: Path, dtype: np.dtype[np.unsignedinteger], start: int, count: int
) -> Iterator[NDArray[np.unsignedinteger]]:
    """Ids [start, start + count) of a part file, some at a time.

    Raises:
        UserError: The file has changed since it was written.
    """
    with reading(path), path.open("rb") as file:
        file.seek(start * dtype.itemsize)
        while count:
            ids = np.fromfile(file, dtype=dtype, count=min(COPY_TOKENS, count))
            if not len(ids):
                raise UserError(f"{path} is shorter than noted; remove {path.parent} and prepare again")
            yield ids
            count -= len(ids)
