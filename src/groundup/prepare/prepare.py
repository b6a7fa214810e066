"""From documents to shards: plan, tokenize, assemble, index.

1. Every part of the source is tokenized on its own into files of raw ids (`work.tokenize_part`).
2. The parts, in order, are one stream of ids per split. A shard is a fixed range of its stream (`plan.py`), so
   shards are a function of the input and the settings alone: not of the number of workers, not of which came first.
3. Shards are copied together (`work.assemble_shard`), and the index, written last, makes the folder a dataset.

Killed anywhere and started again, it does what is not done yet. While it runs, the folder's disk holds the ids twice.
"""

import contextlib
import functools
import hashlib
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from groundup.config.data import ShardConfig
from groundup.config.errors import UsageError, UserError
from groundup.config.io import dump_json, load_json, to_dict
from groundup.corpora.source import Source
from groundup.data.index import DatasetIndex, ShardInfo, load_index
from groundup.data.shards import read_header
from groundup.files.atomic import make_folder, write_file
from groundup.files.layout import INDEX, TOKENIZER
from groundup.formats.document import all_unreadable
from groundup.prepare.executors import Executor, run_here
from groundup.prepare.hold_out import HoldOut, hold_out
from groundup.prepare.plan import bytes_per_id, plan_shards
from groundup.prepare.report import Progress, reading
from groundup.prepare.work import (
    PartFailed,
    PartResult,
    ShardPlan,
    Work,
    assemble_shard,
    engine_of,
    find_shard,
    tokenize_part,
)
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import what_is_left_out
from groundup.tokenizer.io import tokenizer_json

Settings = dict[str, str | int | float]


def prepare(
    source: Source,
    tokenizer: Tokenizer,
    folder: Path,
    layout: ShardConfig | None = None,
    *,
    executor: Executor = run_here,
    only: tuple[int, int] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> DatasetIndex | None:
    """Make a dataset, go on making it, or open the finished one.

    Args:
        source: Where documents come from. Where it labels them train and val, the labels decide.
        tokenizer: What makes ids of them.
        folder: Where the dataset goes.
        layout: Sizes of shards and of validation.
        executor: What runs the calls.
        only: (index, count): do the share of one task of several that run on one folder: every count-th part. The
            shards are assembled by the tasks that find all parts done, together where there are several.
        progress: Called with how far the work is, after every document that is read, every part and every shard.

    Returns:
        The index; None when `only` left work to other tasks that is not done yet.

    Raises:
        UserError: The folder is in use or holds something else, the source or the disk fails.
    """
    layout = layout or ShardConfig()
    index, count = only or (0, 1)
    if not 0 <= index < count:
        raise UsageError(f"task {index} of {count} does not exist: tasks count from 0")
    settings = _settings(source, tokenizer, layout)
    if (folder / INDEX).exists():
        return _finished(folder, settings)
    work = Work(
        source=source,
        folder=folder / ".work",
        vocab_size=tokenizer.vocab_size,
        eot_id=tokenizer.eot_id,
        fingerprint=tokenizer.fingerprint,
        held_out=HoldOut(),
        engine=engine_of(tokenizer),
    )
    _claim(work.folder, settings, tokenizer)
    with _at_work(work.folder, index, count):
        if (folder / INDEX).exists():  # another call finished it while this one began
            return _finished(folder, settings)
        if count == 1:
            _remove_leftovers(work.folder)
        try:
            work = replace(work, held_out=hold_out(source, layout, reading(progress)))
            planned = _plan(work, layout, (index, count), executor, progress)
        except UserError:
            if count == 1 and not any(work.folder.glob("part-*")):
                _forget(work.folder)
            raise
        if planned is None:
            return None
        return _assemble(work, *planned, tokenizer, settings, (index, count), executor, progress)


def _settings(source: Source, tokenizer: Tokenizer, layout: ShardConfig) -> Settings:
    """All that decides the bytes, by names that a message can quote."""
    described = {f"{source.name}.{key}": _short(value) for key, value in source.describe().items()}
    return {"source": source.name, **described, "tokenizer": tokenizer.fingerprint, **to_dict(layout)}


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _refuse_other(found: object, asked: Settings, what: str) -> None:
    if found == asked:
        return
    old = found if isinstance(found, dict) else {}
    key = next(key for key in [*asked, *old, ""] if old.get(key) != asked.get(key) or not key)
    raise UserError(
        f"{what} was made with other settings ({key}: {old.get(key)}, now {asked.get(key)});"
        " choose another folder, or remove it"
    )


def _finished(folder: Path, settings: Settings) -> DatasetIndex:
    found = load_index(folder)
    _refuse_other(found.settings, settings, f"the dataset in {folder}")
    for info in found.shards:
        try:
            read_header(folder / info.file)
        except UserError as error:
            raise UserError(f"{error}; remove {folder} and prepare it again") from None
    shutil.rmtree(folder / ".work", ignore_errors=True)  # where a call was killed right after the index
    return found


def _remove_leftovers(folder: Path) -> None:
    """Delete the half-made files of calls that were killed. Only where no other task can be making them."""
    for leftover in folder.glob(".tmp-*"):
        leftover.unlink(missing_ok=True)


def _forget(work_folder: Path) -> None:
    """Delete work that came to nothing: the next call may well have another flag, and would be refused."""
    shutil.rmtree(work_folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # where it holds something else
        work_folder.parent.rmdir()


def _claim(work_folder: Path, settings: Settings, tokenizer: Tokenizer) -> None:
    """Mark unfinished work with its settings, so that no later call mixes two preparations."""
    mark = work_folder / "settings.json"
    if mark.exists():
        _refuse_other(load_json(mark), settings, f"the unfinished dataset in {work_folder.parent}")
        return
    folder = work_folder.parent
    if not work_folder.exists() and folder.is_dir():
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others:
            raise UserError(f"{folder} is no dataset, it holds {others[0]}; choose an empty folder, or a new one")
    make_folder(work_folder)
    write_file(work_folder / TOKENIZER, tokenizer_json(tokenizer).encode())
    write_file(mark, dump_json(settings).encode())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time: the lock frees itself when its holder dies."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.3)
    except Timeout:
        folder = path.parent.parent
        raise UserError(f"another process is preparing {folder}; wait for it, or choose another folder") from None
    except (OSError, NotImplementedError) as error:
        raise UserError(f"cannot lock {path}: {error}") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _at_work(work_folder: Path, index: int, count: int) -> Iterator[None]:
    """One process at a task, and none beside a whole preparation, which deletes what a task has begun.

    Raises:
        UserError: There is one.
    """
    with _locked(work_folder / f"task-{index}-of-{count}.lock"):
        for lock in work_folder.glob("task-*.lock"):
            if (count == 1) != (lock.name == "task-0-of-1.lock"):
                with _locked(lock):
                    pass
        yield


def _plan(
    work: Work,
    layout: ShardConfig,
    only: tuple[int, int],
    executor: Executor,
    progress: Callable[[Progress], None],
) -> tuple[list[ShardPlan], list[PartResult]] | None:
    """Tokenize, and say which ids become which shard; None when other tasks still have to tokenize some.

    Raises:
        UserError: Parts could not be read, or they are too few for two splits: then none is kept by a single task.
    """
    results = _tokenize(work, only, executor, progress)
    if results is None:
        return None
    try:
        _refuse_foreign(work.source, results)
        return plan_shards(results, layout), results
    except UserError:
        if only[1] == 1:
            for part in work.folder.glob("part-*"):
                part.unlink(missing_ok=True)
        raise


def _refuse_foreign(source: Source, results: Sequence[PartResult]) -> None:
    """See that a text is not mostly in letters that the tokenizer does not know.

    Raises:
        UserError: It is.
    """
    try:
        what_is_left_out(_unknown(results), sum(result.n_tokens for result in results))
    except UserError as error:
        text = shlex.quote(getattr(source, "pattern", "TEXT"))
        raise UserError(
            f"{error}; a model with an alphabet of its own learns them all: groundup train {text}"
        ) from None


def _unknown(results: Sequence[PartResult]) -> Counter[str]:
    """Characters that were left out, and how often."""
    return sum((Counter(result.unknown) for result in results), Counter())


def _tokenize(
    work: Work, only: tuple[int, int], executor: Executor, progress: Callable[[Progress], None]
) -> list[PartResult] | None:
    """Do the parts that are not done; return all results, or None when other tasks still have to do some.

    Raises:
        UserError: Parts could not be read; what could is kept.
    """
    parts = list(enumerate(work.source.parts()))
    if not parts:
        raise UserError(f"{work.source.name} has no documents")
    index, count = only
    mine = parts[index::count]
    missing = [(number, part) for number, part in mine if work.part_result(number) is None]
    tokens = n_bytes = 0
    failed: list[UserError] = []
    for done, result in enumerate(
        executor(functools.partial(tokenize_part, work), missing), start=len(mine) - len(missing) + 1
    ):
        if isinstance(result, PartFailed):
            failed.append(result.error)
        else:
            tokens += result.n_tokens
            n_bytes += result.n_bytes
        progress(Progress(phase="tokenize", done=done, total=len(mine), tokens=tokens, n_bytes=n_bytes))
    if failed:
        rest = f" ({len(failed)} of {len(parts)} parts failed; the others are kept)" if len(parts) > 1 else ""
        raise UserError(f"{all_unreadable(failed)}{rest}")
    results = [work.part_result(number) for number, _ in parts]
    done_results = [result for result in results if result is not None]
    return done_results if len(done_results) == len(parts) else None


def _assemble(
    work: Work,
    plans: Sequence[ShardPlan],
    results: Sequence[PartResult],
    tokenizer: Tokenizer,
    settings: Settings,
    only: tuple[int, int],
    executor: Executor,
    progress: Callable[[Progress], None],
) -> DatasetIndex | None:
    folder = work.folder.parent
    index, count = only
    first = len(plans) * index // count  # tasks begin at different shards, and meet few that others are making
    missing = [(plan,) for plan in [*plans[first:], *plans[:first]] if find_shard(work, plan) is None]
    make = functools.partial(assemble_shard, work, bytes_per_id(tokenizer), alone=count == 1)
    tokens = 0
    try:
        for done, info in enumerate(executor(make, missing), start=len(plans) - len(missing) + 1):
            tokens += info.n_tokens if info else 0
            progress(Progress(phase="assemble", done=done, total=len(plans), tokens=tokens))
    except UserError:
        if not (folder / INDEX).exists():
            raise
        # Another task found all shards made, finished, and took the parts away: there is nothing left to do.
    with _locked(work.folder / "finish.lock"):
        if (folder / INDEX).exists():
            return _finished(folder, settings)
        infos = [find_shard(work, plan) for plan in plans]
        made = [info for info in infos if info is not None]
        if len(made) < len(plans):
            return None
        return _finish(work, made, results, settings)


def _finish(work: Work, infos: Sequence[ShardInfo], results: Sequence[PartResult], settings: Settings) -> DatasetIndex:
    """Give the shards their place, and write the index that makes them a dataset."""
    folder = work.folder.parent
    skipped: Counter[str] = Counter()
    for result in results:
        skipped.update(result.skipped)
    index = DatasetIndex(
        source=work.source.name,
        settings=settings,
        tokenizer_fingerprint=work.fingerprint,
        vocab_size=work.vocab_size,
        shards=tuple(infos),
        skipped=dict(sorted(skipped.items())),
        spelled_ends=sum(result.spelled_ends for result in results),
        unknown=dict(_unknown(results)),
        unseparated=sum(result.n_documents for result in results) if work.eot_id is None else 0,
    )
    try:
        _remove_leftovers(folder)  # of a call that was killed right here
        for info in infos:
            if (made := work.folder / info.file).exists():
                made.replace(folder / info.file)
        saved_tokenizer = (work.folder / TOKENIZER).read_bytes()
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    write_file(folder / TOKENIZER, saved_tokenizer)
    index.save(folder)
    shutil.rmtree(work.folder, ignore_errors=True)
    return index
