"""Preparation: our processes against the usual way, a pool to which a parent feeds documents and which sends ids back.

Both read the same files, use the same tiktoken and end with ids on the disk. The script that stands for the usual way
leaves half of the processors idle; here it also runs with a process for each.
"""

import functools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from groundup.bench.options import PrepareOptions as Options
from groundup.config.data import ShardConfig
from groundup.config.errors import UserError
from groundup.contestants.pool import SHARD_TOKENS, documents_of, pool_of_documents
from groundup.corpora.local_files import LocalFiles
from groundup.corpora.shakespeare import Shakespeare
from groundup.files.processes import piped
from groundup.prepare.executors import run_processes
from groundup.prepare.prepare import prepare
from groundup.tokenizer.gpt2 import load_gpt2
from groundup.tokenizer.gpt2_engines import EngineName

FILES = 16
"""Files of a made-up corpus."""
Preparation = Callable[[Path, int], int]
"""From a folder of texts and a number of workers to the number of tokens."""


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Prepare a corpus in turns.

    Args:
        options: What to measure.
        say: Told a line per contestant.

    Returns:
        Bytes and tokens per second, time over our time, and the memory of the largest worker.

    Raises:
        UserError: There is no corpus, or a contestant fails.
    """
    contestants: dict[str, tuple[Preparation, int]] = {
        "groundup": (_ours, options.workers),
        "pool, half the workers": (pool_of_documents, max(1, options.workers // 2)),
        "pool, all workers": (pool_of_documents, options.workers),
    }
    if options.gigatoken and load_gpt2().engine == "gigatoken":
        contestants["groundup, gigatoken"] = functools.partial(_ours, engine="gigatoken"), options.workers
    with tempfile.TemporaryDirectory() as folder:
        texts = options.path or _made_up(Path(folder), options.megabytes)
        n_bytes = sum(len(text.encode()) for text in documents_of(texts))
        runs: dict[str, list[_Run]] = {name: [] for name in contestants}
        names = list(contestants)
        for number in range(options.rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                runs[name].append(_alone(texts, *contestants[name]))
    counts = {run.tokens for turns in runs.values() for run in turns}
    if len(counts) != 1:
        raise UserError(f"the contestants made different numbers of tokens: {', '.join(map(str, sorted(counts)))}")
    result: dict[str, Any] = {
        "bench": "prepare",
        "corpus": str(options.path or "made of the plays"),
        "bytes": n_bytes,
        "tokens": counts.pop(),
        "workers": options.workers,
        "cpus": os.cpu_count(),
        "contestants": {},
    }
    for name, turns in runs.items():
        seconds = statistics.median(run.seconds for run in turns)
        ratio = statistics.median(b.seconds / a.seconds for a, b in zip(runs["groundup"], turns, strict=True))
        row = result["contestants"][name] = {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(statistics.median(run.cpu_seconds for run in turns), 3),
            "mb_per_sec": round(n_bytes / seconds / 1e6, 3),
            "tokens_per_sec": round(result["tokens"] / seconds),
            "times_our_time": round(ratio, 3),
            "largest_worker_mb": round(max(run.largest_worker for run in turns) / 1e6),
        }
        say(
            f"{name:<24}{row['mb_per_sec']:>8.2f} MB/s{row['tokens_per_sec']:>12,} tokens/s"
            f"{row['cpu_seconds']:>8.1f} CPU seconds{row['largest_worker_mb']:>6,} MB a worker"
            f"  {row['times_our_time']:.2f} times our time"
        )
    return result


@dataclass(frozen=True, slots=True)
class _Run:
    seconds: float
    cpu_seconds: float
    """Of the process and all of its workers: what counts on a machine that is busy with something else."""
    tokens: int
    largest_worker: int
    """Bytes of memory."""


def _made_up(folder: Path, megabytes: int) -> Path:
    """Documents of the length of web pages, as JSON Lines."""
    source = Shakespeare()
    texts = [document.text for part in source.parts() for document in source.read(part, {})]
    speeches = "".join(texts).split("\n\n")
    rng = random.Random(0)
    for number in range(FILES):
        left = megabytes * 1_000_000 // FILES
        with (folder / f"{number:03d}.jsonl").open("w", encoding="utf-8") as file:
            while left > 0:
                text = "\n\n".join(rng.choices(speeches, k=min(400, int(rng.lognormvariate(2.6, 1.0)) + 1)))
                file.write(json.dumps({"text": text}) + "\n")
                left -= len(text)
    return folder


def _alone(texts: Path, contestant: Preparation, workers: int) -> _Run:
    """Let one contestant run in a process of its own, which may have workers."""
    with piped(_timed, contestant, texts, workers, daemon=False) as pipe:
        try:
            return pipe.recv()
        except EOFError:
            raise UserError("a contestant died; its error is above") from None


def _timed(pipe: Connection, contestant: Preparation, texts: Path, workers: int) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that its workers are ended, too
    start, cpu_start = time.perf_counter(), sum(os.times()[:4])
    tokens = contestant(texts, workers)
    seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - cpu_start
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # they have ended
    pipe.send(_Run(seconds, cpu_seconds, tokens, _largest_child()))


def _largest_child() -> int:
    """Most bytes that a process of this contestant held; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit


def _ours(texts: Path, workers: int, engine: EngineName = "tiktoken") -> int:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = load_gpt2(engine=engine)
        # The rule that cuts no document before it is encoded: in two, it can have a token more than the pool's.
        layout = ShardConfig(shard_tokens=SHARD_TOKENS, val_rule="head")
        index = prepare(LocalFiles(str(texts)), tokenizer, Path(folder), layout, executor=run_processes(workers))
    assert index is not None
    return sum(info.n_tokens for info in index.shards)
