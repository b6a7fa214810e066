"""groundup prepare SOURCE OUT: turn text into token shards."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO, cast

import tyro

from groundup.config.data import ReadConfig, ShardConfig
from groundup.config.errors import UsageError
from groundup.terminal.ended import Ended
from groundup.terminal.parse import parse
from groundup.terminal.say import say, warn
from groundup.terminal.waiting import own_cores

if TYPE_CHECKING:
    from groundup.prepare.executors import Executor


@dataclass(frozen=True, kw_only=True)
class Options:
    """Turn text into token shards. Stopped or killed at any time, the same command goes on.

    Files end in .txt, .md, .jsonl, .json, .csv, .tsv or .parquet, each also with .gz or .zst.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """fineweb-edu, hf:OWNER/NAME[@REVISION], shakespeare, tiny-shakespeare, or a file, a folder or a quoted glob."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The folder of the dataset."""
    tokenizer: str = "gpt2"
    """gpt2, char, or the path of a tokenizer.json."""
    layout: Annotated[ShardConfig, tyro.conf.arg(name="")] = field(default_factory=ShardConfig)
    reading: Annotated[ReadConfig, tyro.conf.arg(name="")] = field(default_factory=ReadConfig)
    subset: str | None = None
    """Subset (configuration) of a dataset of the Hub; sample-10BT for fineweb-edu."""
    split: str = "train"
    """Split of a dataset of the Hub."""
    stream: bool = False
    """Read a dataset of the Hub over the network, part by part, instead of downloading its files first."""
    cache_dir: Path = Path("data")
    """Where downloads are kept."""
    workers: int = 0
    """Processes on this machine; 0 is one per core."""
    executor: Literal["processes", "ray"] = "processes"
    """Where the work is done: processes of this machine, or the Ray cluster at RAY_ADDRESS."""
    task_index: int | None = None
    """This is task number task-index (from 0) of task-count that share the work in one folder."""
    task_count: int | None = None
    """How many tasks share the work, on machines that share the folder."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning before anything is read."""
        if self.workers < 0:
            raise UsageError(f"workers must be 0 (one per core) or more, got {self.workers}")
        if self.workers and self.executor == "ray":
            raise UsageError("--workers is for --executor processes; Ray uses the cores of its cluster")
        if (self.task_index is None) != (self.task_count is None):
            raise UsageError("--task-index and --task-count go together")
        if self.task_index is not None and self.task_count is not None and not 0 <= self.task_index < self.task_count:
            raise UsageError(f"task {self.task_index} of {self.task_count} does not exist: tasks count from 0")

    @property
    def only(self) -> tuple[int, int] | None:
        """The share of this task; None is all."""
        return None if self.task_index is None or self.task_count is None else (self.task_index, self.task_count)


def main(argv: Sequence[str]) -> int:
    """Prepare a dataset; progress goes to stderr, the summary to stdout."""
    try:
        options = parse(Options, argv, prog="groundup prepare")
    except UsageError as error:
        words = [word for word in argv if not word.startswith("-")]
        if len(words) > 2 and str(error).startswith("unrecognized options: ") and not argv[2].startswith("-"):
            raise UsageError(
                f"one text and one folder to make, got {', '.join(words)}; a folder or a glob in quotes,"
                " 'texts/**/*.txt', takes several files"
            ) from None
        raise
    from rich.console import Console

    from groundup.prepare.corpus import find_source, make_tokenizer
    from groundup.prepare.prepare import prepare
    from groundup.prepare.progress import PrepareProgress
    from groundup.prepare.report import dataset_summary
    from groundup.prepare.surprises import surprises
    from groundup.terminal.output import PatientStream

    errors = cast("TextIO", PatientStream(sys.stderr))  # a terminal that closes must not end hours of work
    display = PrepareProgress(Console(file=errors, soft_wrap=True, markup=False, emoji=False))
    source = find_source(
        options.source,
        cache_dir=options.cache_dir,
        config=options.reading,
        subset=options.subset,
        split=options.split,
        stream=options.stream,
        progress=display.update,
    )
    start = time.monotonic()
    try:
        with display:
            index = prepare(
                source,
                make_tokenizer(options.tokenizer, source, display.update),
                options.out,
                options.layout,
                executor=display.timed(_executor(options)),
                only=options.only,
                progress=display.update,
            )
    except (KeyboardInterrupt, Ended) as error:
        warn(f"{str(error) or 'interrupted'}; the same command goes on")
        return error.code if isinstance(error, Ended) else 130
    if index is None:
        say(f"the share of task {options.task_index} is done; {options.out} is complete when all tasks are")
        return 0
    say(dataset_summary(index, options.out))
    for line in surprises(replace(index, skipped={})):
        warn(str(line))
    if display.tokens:
        print(f"  {display.rate()}, {time.monotonic() - start:.1f} s in all")
    return 0


def _executor(options: Options) -> "Executor":
    from groundup.prepare.executors import run_here, run_processes

    if options.executor == "ray":
        from groundup.prepare.executors_ray import run_ray

        return run_ray()
    workers = options.workers or own_cores()
    return run_here if workers == 1 else run_processes(workers)
