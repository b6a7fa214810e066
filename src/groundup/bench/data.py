"""The loader: how fast batches come from memory and from the disk, and which share of a training step they cost."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.bench.options import DataOptions as Options
from groundup.bench.options import TrainOptions
from groundup.bench.train import _ours as train_step
from groundup.config.model import GPTConfig
from groundup.config.presets import GPT2_VOCAB
from groundup.contestants.ours import split_of
from groundup.data.dataset import Split
from groundup.data.loader import TrainBatches
from groundup.runtime.measure import copy_bandwidth

READ_BYTES = 8 << 20
"""Size of the reads that the disk's limit is measured with."""


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Load batches from three places.

    Args:
        options: What to measure.
        say: Told a line per place.

    Returns:
        Time per batch, tokens and bytes per second, the limits of memory and disk, and the share of a step.
    """
    result: dict[str, Any] = {
        "bench": "data",
        "tokens": options.tokens,
        "block_size": options.block_size,
        "micro_batch_size": options.micro_batch_size,
        "memory_copy_gb_per_sec": round(copy_bandwidth(torch.device("cpu")) / 2e9, 2),
        "places": {},
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        ids = np.random.default_rng(0).integers(GPT2_VOCAB, size=options.tokens, dtype=np.uint16)
        split = split_of(ids, GPT2_VOCAB, folder)
        del ids
        file = folder / "train.bin"
        result["disk_read_gb_per_sec"] = round(_read_rate(file) / 1e9, 3)
        result["cached_read_gb_per_sec"] = round(_read_rate(file, cold=False) / 1e9, 3)
        for place, in_memory, cold in (
            ("memory", 2 * options.tokens, False),
            ("disk, cached", 0, False),
            ("disk, cold", 0, True),
        ):
            if cold:
                _evict(file)
            row = _load(split, options, in_memory_bytes=in_memory)
            result["places"][place] = row
            say(
                f"{place:<14}{row['us_per_batch']:>10,.0f} us a batch{row['tokens_per_sec']:>16,} tokens/s"
                f"{row['gb_per_sec']:>8.3f} GB/s"
            )
    if options.step:
        result["step"] = _share_of_step(options, say)
    return result


def _load(split: Split, options: Options, *, in_memory_bytes: int) -> dict[str, Any]:
    """Batches one after the other, with nothing in between."""
    batches = TrainBatches(
        split,
        block_size=options.block_size,
        micro_batch_size=options.micro_batch_size,
        seed=1,
        in_memory_bytes=in_memory_bytes,
    )
    seconds = []
    for _ in range(options.batches):
        start = time.perf_counter()
        batches.next_batch()
        seconds.append(time.perf_counter() - start)
    mean = statistics.fmean(seconds)
    tokens = options.block_size * options.micro_batch_size
    return {
        "us_per_batch": round(1e6 * mean, 1),
        "us_median": round(1e6 * statistics.median(seconds), 1),
        "us_longest": round(1e6 * max(seconds), 1),
        "tokens_per_sec": round(tokens / mean),
        "gb_per_sec": round(2 * tokens / mean / 1e9, 4),
    }


def _share_of_step(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """The loader beside a whole step of the smallest model anybody trains: the hardest case."""
    train = TrainOptions(threads=options.threads, device="cpu", precision="fp32")
    step, _ = train_step(train)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        split = split_of(np.random.default_rng(0).integers(train.model.vocab_size, size=1_000_000), 65, Path(folder))
        small = Options(block_size=train.model.block_size, micro_batch_size=train.micro_batch_size, batches=500)
        load = _load(split, small, in_memory_bytes=2 * split.n_tokens)
    for _ in range(5):
        step()
    seconds = []
    for _ in range(50):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    ms = 1e3 * statistics.median(seconds)
    share = load["us_per_batch"] / 1e3 / ms
    say(f"a step of {ms:.1f} ms needs a batch of {load['us_per_batch']:.0f} us: {share:.2%}")
    model: GPTConfig = train.model
    return {
        "n_layer": model.n_layer,
        "n_embd": model.n_embd,
        "ms_per_step": round(ms, 3),
        "us_per_batch": load["us_per_batch"],
        "share": round(share, 5),
    }


def _evict(path: Path) -> None:
    """Ask the system to forget what it keeps of a file in memory, where it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_rate(path: Path, *, cold: bool = True) -> float:
    """Bytes per second of reading a file from its beginning to its end."""
    if cold:
        _evict(path)
    buffer = bytearray(READ_BYTES)
    start = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return path.stat().st_size / (time.perf_counter() - start)
