"""Saving and loading a training state: at once, in the background, and torch.save of the same tensors beside it."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.bench.options import CheckpointOptions as Options
from groundup.checkpoint.state import CheckpointStore, Contents
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.files.layout import CHECKPOINTS
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.timing import synchronize
from groundup.tokenizer.gpt2 import load_gpt2

SAVE, STALL, BACKGROUND, LOAD = "save", "stall", "background", "load"
TORCH_SAVE, TORCH_DURABLE, TORCH_LOAD = "torch.save", "torch.save, fsynced", "torch.load"


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Save and load the same state in every way, in turns.

    Args:
        options: What to measure.
        say: Told a line per way.

    Returns:
        Median seconds of each way, the longest stall of a save in the background, bytes, and what it was measured on.

    Raises:
        UserError: The disk refuses, or what was loaded is not what was saved.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    contents = _contents(options.model, device)
    try:
        with tempfile.TemporaryDirectory(prefix=".bench-checkpoint-", dir=options.folder) as folder:
            seconds, size = _measure(contents, Path(folder), options.rounds, device)
    except OSError as error:
        raise UserError(f"cannot write to {options.folder}: {error.strerror or error}") from error
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    for way, each in seconds.items():
        say(f"{way:<22}{medians[way]:9.3f} s   ({', '.join(f'{s:.3f}' for s in each)})")
    return {
        "bench": "checkpoint",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "parameters": sum(t.numel() for t in contents.model.values()),
        "bytes": size,
        "rounds": options.rounds,
        "save_seconds": round(medians[SAVE], 3),
        "stall_ms": round(1e3 * medians[STALL], 1),
        "longest_stall_ms": round(1e3 * max(seconds[STALL]), 1),
        "background_seconds": round(medians[BACKGROUND], 3),
        "load_and_verify_seconds": round(medians[LOAD], 3),
        "torch_save_seconds": round(medians[TORCH_SAVE], 3),
        "torch_save_fsynced_seconds": round(medians[TORCH_DURABLE], 3),
        "torch_load_seconds": round(medians[TORCH_LOAD], 3),
    }


def _contents(config: GPTConfig, device: torch.device) -> Contents:
    """A state as training has it: weights, and two moments of each, of random numbers."""
    model = init_weights(GPT(config), seed=0).to(device).state_dict()
    generator = torch.Generator(device).manual_seed(0)
    moments: dict[str, Tensor] = {}
    for i, p in enumerate(model.values()):
        moments[f"{i}.exp_avg"] = torch.empty_like(p).normal_(generator=generator)
        moments[f"{i}.exp_avg_sq"] = torch.empty_like(p).normal_(generator=generator)
        moments[f"{i}.step"] = torch.tensor(1.0)
    return Contents(
        step=0,
        config=config,
        model=model,
        tokenizer=load_gpt2(),
        tensors={"optimizer0": moments},
        state={},
        is_best=False,
    )


def _measure(contents: Contents, folder: Path, rounds: int, device: torch.device) -> tuple[dict[str, list[float]], int]:
    """Seconds of each way, by round, and the bytes of a checkpoint."""
    store = CheckpointStore(folder / CHECKPOINTS)
    seconds: dict[str, list[float]] = {}

    def timed(way: str, work: Callable[[], Any]) -> Any:
        synchronize(device)
        start = time.perf_counter()
        result = work()
        seconds.setdefault(way, []).append(time.perf_counter() - start)
        return result

    store.reserve(contents)
    for _ in range(rounds):
        path = timed(SAVE, lambda: store.save(contents))
        checkpoint = timed(LOAD, partial(store.load, path))
        _require_same(contents, checkpoint.model, checkpoint.tensors["optimizer0"])
        begin = time.perf_counter()
        timed(STALL, lambda: store.save_later(contents))
        store.wait()
        seconds.setdefault(BACKGROUND, []).append(time.perf_counter() - begin)
        _rival(contents, folder / "rival.pt", timed)
    return seconds, sum(file.stat().st_size for file in path.iterdir())


def _rival(contents: Contents, path: Path, timed: Callable[[str, Callable[[], Any]], Any]) -> None:
    """torch.save as most do it, over the file before; and as safe from a power cut as ours, but for the hashes."""
    state = {"model": contents.model, "optimizer": contents.tensors["optimizer0"]}

    def durable() -> None:
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            os.fsync(file.fileno())
        temporary.replace(path)

    timed(TORCH_SAVE, lambda: torch.save(state, path))
    timed(TORCH_DURABLE, durable)
    loaded = timed(TORCH_LOAD, lambda: torch.load(path, map_location="cpu", weights_only=True))
    _require_same(contents, loaded["model"], loaded["optimizer"])


def _require_same(contents: Contents, model: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
    for saved, loaded in ((contents.model, model), (contents.tensors["optimizer0"], moments)):
        if saved.keys() != loaded.keys() or not all(t.cpu().equal(loaded[name]) for name, t in saved.items()):
            raise UserError("what was loaded is not what was saved: this is no fair comparison")
