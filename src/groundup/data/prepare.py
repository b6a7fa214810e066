"""From documents to shards: plan, tokenize, assemble, index.

1. Every part of the source is tokenized on its own into a file of raw ids (`work.tokenize_part`).
2. The parts, in order, are one stream of ids per split. A shard is a fixed range of its stream, so shards are a
   function of the input and the settings alone: not of the number of workers, not of which came first.
3. Shards are copied together (`work.assemble_shard`), and the index, written last, makes the folder a dataset.

Killed anywhere and started again, it does what is not done yet.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from groundup.config.errors import UsageError, UserError
from groundup.data.documents import Part, Source, SplitName
from groundup.data.executors import Executor, run_here
from groundup.data.index import INDEX, DatasetIndex, ShardInfo, load_index
from groundup.data.work import PartResult, ShardPlan, Work, assemble_shard, tokenize_part
from groundup.runtime.files import write_file
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.io import FILE as TOKENIZER_FILE
from groundup.tokenizer.io import save_tokenizer

ValRule = Literal["head", "hash"]
Progress = Callable[[str, int, int, int, int], None]
"""Called with (phase, units done, units in all, tokens so far, text bytes so far)."""


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    shard_tokens: int = 100_000_000,
    val_rule: ValRule = "head",
    val_fraction: float = 0.01,
    executor: Executor = run_here,
    only: tuple[int, int] | None = None,
    progress: Progress | None = None,
) -> DatasetIndex | None:
    """Make a dataset, go on making it, or open the finished one.

    Args:
        source: Where documents come from. Where it labels them train and val, the labels decide.
        tokenizer: What makes ids of them.
        folder: Where the dataset goes.
        shard_tokens: Ids per shard.
        val_rule: For documents without a label: "head" takes the first ids of the stream (one shard, or
            val_fraction of all where that is less), "hash" takes val_fraction of the documents by their hash.
        val_fraction: Share of validation.
        executor: Who does the work.
        only: (index, count): tokenize every count-th part from index on and leave the rest to other tasks; the
            task that finds all parts done assembles the shards.
        progress: Told how far the work is.

    Returns:
        The index; None when `only` left parts to others that are not done yet.

    Raises:
        UserError: The folder is in use or holds something else, the source or the disk fails.
    """
    if shard_tokens < 1:
        raise UsageError(f"shard_tokens must be at least 1, got {shard_tokens}")
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction must be between 0 and 1, got {val_fraction}")
    settings = _settings(source, tokenizer, shard_tokens, val_rule, val_fraction)
    if (folder / INDEX).exists():
        return _finished(folder, settings)
    work = Work(source, tokenizer, folder / ".work", val_fraction if val_rule == "hash" else 0.0)
    _claim(work.folder, settings)
    parts = list(enumerate(source.parts()))
    if not parts:
        raise UserError(f"{source.name} has no documents")

    index, count = only or (0, 1)
    lock = FileLock(work.folder / f"task-{index}-of-{count}.lock")
    try:
        with lock.acquire(timeout=0.2):
            mine = [(number, part) for number, part in parts if number % count == index]
            _tokenize(work, mine, executor, progress)
    except Timeout:
        raise UserError(f"another process is preparing {folder}; wait for it, or choose another folder") from None
    results = [work.part_result(number) for number, _ in parts]
    done = [result for result in results if result is not None]
    if len(done) < len(parts):
        return None
    try:
        with FileLock(work.folder / "assemble.lock").acquire(timeout=0.2):
            return _assemble(work, done, settings, shard_tokens, val_rule, val_fraction, executor, progress)
    except Timeout:
        return None


def _settings(
    source: Source, tokenizer: Tokenizer, shard_tokens: int, val_rule: ValRule, val_fraction: float
) -> str:
    """SHA-256 of all that decides the bytes."""
    values = [source.name, source.describe(), tokenizer.fingerprint, shard_tokens, val_rule, val_fraction]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _finished(folder: Path, settings: str) -> DatasetIndex:
    found = load_index(folder)
    if found.settings != settings:
        raise UserError(f"{folder} holds a dataset made with other settings; choose another folder, or remove it")
    return found


def _claim(work_folder: Path, settings: str) -> None:
    """Mark unfinished work with its settings, so that a later call never mixes two preparations."""
    mark = work_folder / "settings"
    if mark.exists() and mark.read_text() != settings:
        raise UserError(
            f"{work_folder.parent} holds an unfinished preparation with other settings; finish it, or remove the folder"
        )
    try:
        work_folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {work_folder}: {error.strerror}") from error
    if not mark.exists():
        write_file(mark, settings.encode())


def _tokenize(
    work: Work, parts: Sequence[tuple[int, Part]], executor: Executor, progress: Progress | None
) -> None:
    tokens = text_bytes = 0
    for n, result in enumerate(executor(tokenize_part, [(work, number, part) for number, part in parts]), start=1):
        assert isinstance(result, PartResult)
        tokens += result.train_tokens + result.val_tokens
        text_bytes += result.text_bytes
        if progress:
            progress("tokenize", n, len(parts), tokens, text_bytes)


def _assemble(  # noqa: PLR0913
    work: Work,
    results: Sequence[PartResult],
    settings: str,
    shard_tokens: int,
    val_rule: ValRule,
    val_fraction: float,
    executor: Executor,
    progress: Progress | None,
) -> DatasetIndex:
    folder = work.folder.parent
    plans = plan_shards(results, shard_tokens=shard_tokens, head_fraction=val_fraction if val_rule == "head" else 0.0)
    bytes_of_id = bytes_per_id(work.tokenizer)
    infos: dict[str, ShardInfo] = {}
    for n, info in enumerate(executor(assemble_shard, [(work, plan, bytes_of_id) for plan in plans]), start=1):
        assert isinstance(info, ShardInfo)
        infos[info.file] = info
        if progress:
            progress("assemble", n, len(plans), sum(i.n_tokens for i in infos.values()), 0)
    skipped: Counter[str] = Counter()
    for result in results:
        skipped.update(result.skipped)
    index = DatasetIndex(
        source=work.source.name,
        settings=settings,
        tokenizer_fingerprint=work.tokenizer.fingerprint,
        vocab_size=work.tokenizer.vocab_size,
        shards=tuple(infos[plan.file] for plan in plans),
        skipped=dict(sorted(skipped.items())),
    )
    save_tokenizer(work.tokenizer, folder / TOKENIZER_FILE)
    index.save(folder)
    shutil.rmtree(work.folder, ignore_errors=True)
    return index


def plan_shards(
    results: Sequence[PartResult], *, shard_tokens: int, head_fraction: float
) -> list[ShardPlan]:
    """Cut the streams of both splits into shards, validation first.

    Args:
        results: What the parts became, in order.
        shard_tokens: Ids per shard; the last of a split has what is left.
        head_fraction: Where no document was labeled val: the share of the stream's head that becomes validation,
            at most one shard.

    Raises:
        UserError: One of the splits would be empty.
    """
    train = [(f"part-{i:06d}.train", r.train_tokens) for i, r in enumerate(results)]
    val = [(f"part-{i:06d}.val", r.val_tokens) for i, r in enumerate(results)]
    n_train, n_val = sum(n for _, n in train), sum(n for _, n in val)
    start = 0
    if not n_val and head_fraction:
        start = min(shard_tokens, int(n_train * head_fraction))
        val, n_val = train, start
    if not n_val or n_train <= start:
        raise UserError(
            f"{n_train + n_val:,} tokens are too few to be split into training and validation; use more text"
        )
    plans = []
    for split, stream, first, end in (("val", val, 0, n_val), ("train", train, start, n_train)):
        for k, at in enumerate(range(first, end, shard_tokens)):
            pieces = _pieces(stream, at, min(at + shard_tokens, end))
            name: SplitName = "val" if split == "val" else "train"
            plans.append(ShardPlan(f"{split}-{k:06d}.bin", name, pieces))
    return plans


def _pieces(stream: Sequence[tuple[str, int]], start: int, end: int) -> tuple[tuple[str, int, int], ...]:
    """The range [start, end) of a stream, as ranges of the files it consists of."""
    pieces = []
    base = 0
    for file, count in stream:
        low, high = max(start, base), min(end, base + count)
        if low < high:
            pieces.append((file, low - base, high - low))
        base += count
    return tuple(pieces)


def bytes_per_id(tokenizer: Tokenizer) -> NDArray[np.int64]:
    """UTF-8 bytes that each id spells; the separator spells none."""
    sizes = [0 if i == tokenizer.eot_id else len(tokenizer.decode_bytes([i])) for i in range(tokenizer.vocab_size)]
    return np.array(sizes, dtype=np.int64)
