"""Who, where and with what: the facts of a run that its numbers depend on."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from groundup import __version__
from groundup.config.data import DataConfig
from groundup.config.presets import GPT2_VOCAB
from groundup.config.train import TrainConfig
from groundup.data.index import INDEX, load_index
from groundup.planner.plan import plan
from groundup.records.display import quantity
from groundup.runtime.device import device_name
from groundup.tokenizer.io import resolve_tokenizer

GUESSED_VOCAB = 65
"""A character vocabulary is known when the text has been read; a plan on paper takes Tiny Shakespeare's."""


def machine(device: torch.device) -> dict[str, Any]:
    """The machine and the versions that compute a run."""
    return {
        "device": device_name(device),
        "cpu cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "groundup": __version__ + (f" ({commit})" if (commit := _commit()) else ""),
    }


def _commit() -> str | None:
    """The commit groundup runs from, when it runs from a checkout."""
    here = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def print_plan(config: TrainConfig, console: Console) -> None:
    """Print what a run would be, without reading its text or touching its device."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in plan(config, vocab_size=vocabulary(config.data)).rows():
        table.add_row(name, value)
    console.print(table)


def vocabulary(data: DataConfig) -> int:
    """Ids of the tokenizer, as far as they can be known before the text is read."""
    if data.source == "shards":
        return load_index(data.path).vocab_size if data.path and (data.path / INDEX).is_file() else GPT2_VOCAB
    if data.tokenizer == "char":
        return GUESSED_VOCAB
    return GPT2_VOCAB if data.tokenizer == "gpt2" else resolve_tokenizer(data.tokenizer).vocab_size


def print_start(
    config: TrainConfig, *, parameters: int, resolved: dict[str, Any], tokens: int, console: Console
) -> None:
    """Print what is about to happen, in two lines."""
    m = config.model
    console.print(
        f"model: {m.n_layer} layers, {m.n_head} heads, {m.n_embd} wide, context {m.block_size},"
        f" {resolved['vocab_size']} symbols: {quantity(parameters)} parameters",
        highlight=False,
    )
    console.print(
        f"run: {config.max_steps:,} steps of {config.tokens_per_step:,} tokens,"
        f" {config.max_steps * config.tokens_per_step / tokens:.1f} times through {quantity(tokens)} tokens,"
        f" on {resolved['device']} in {resolved['precision']}"
        f"{', compiled' if resolved['compile'] == 'on' else ''}"
        f"{', {processes} processes ({parallel})'.format_map(resolved) if resolved['processes'] > 1 else ''}",
        highlight=False,
    )
