"""Peak memory of training steps, beside what the planner says they need."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.config.presets import GPT2
from groundup.contestants.contest import Contestant, Factory, race
from groundup.contestants.ours import How, our_trainer
from groundup.planner.memory import training_memory
from groundup.planner.params import count_parameters
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.measure import peak_memory
from groundup.runtime.precision import pick_precision
from groundup.runtime.timing import synchronize


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the memory of training. The default model is GPT-2 124M."""

    model: GPTConfig = GPT2
    micro_batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    """Sequences per forward pass, one row of the table each."""
    recompute_from: int = 8
    """The least of them that is measured with --runtime.recompute, too."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    precision: str = "auto"
    """auto, fp32, tf32, bf16 or fp16."""


@dataclass(frozen=True)
class _Case:
    """One row."""

    options: Options
    micro_batch_size: int
    recompute: bool


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Make two steps in a process of its own for every row.

    Args:
        options: What to measure.
        say: Told a line per row.

    Returns:
        Bytes planned and measured. What Python, PyTorch and its libraries take for a model of any size, some
        hundreds of MB, is not counted.

    Raises:
        UserError: A row does not fit into memory.
    """
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device, n_embd=options.model.n_embd)
    resolved = dataclasses.replace(options, precision=precision.name)
    result: dict[str, Any] = {
        "bench": "memory",
        "device": device_name(device),
        "torch": torch.__version__,
        "precision": precision.name,
        "parameters": count_parameters(options.model),
        "block_size": options.model.block_size,
        "rows": [],
    }
    sizes = [(size, False) for size in options.micro_batch_sizes]
    sizes += [(size, True) for size in options.micro_batch_sizes if size >= options.recompute_from]
    for size, recompute in sizes:
        planned = training_memory(
            options.model,
            micro_batch_size=size,
            half=precision.half,
            cpu=device.type == "cpu",
            recompute=recompute,
        ).total
        name = f"{size} x {options.model.block_size}{', blocks computed again' if recompute else ''}"
        contestants: dict[str, Factory] = {name: _steps}
        try:
            timing = race(contestants, _Case(resolved, size, recompute), rounds=1, runs=1, warmup=1)[name]
        except UserError as error:
            raise UserError(f"{error}; it needs {planned / 1e9:.1f} GB: name smaller --micro-batch-sizes") from None
        row = {
            "micro_batch_size": size,
            "recompute": recompute,
            "planned_bytes": planned,
            "measured_bytes": timing.peak_memory,
        }
        result["rows"].append(row)
        say(f"{name:<32}planned {planned / 1e9:6.2f} GB   measured {timing.peak_memory / 1e9:6.2f} GB")
    return result


def _steps(case: _Case) -> Contestant:
    options = case.options
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device, n_embd=options.model.n_embd)
    # The first step of any model loads what the libraries need: their pages are not the model's.
    tiny = dataclasses.replace(options.model, n_layer=1, n_head=1, n_embd=16, block_size=16, vocab_size=64)
    our_trainer(tiny, 1, device=device, precision=precision, how=How(recompute=case.recompute)).train_step()
    before = peak_memory(device)
    trainer = our_trainer(
        options.model, case.micro_batch_size, device=device, precision=precision, how=How(recompute=case.recompute)
    )

    def run() -> None:
        trainer.train_step()
        synchronize(device)

    return run, lambda: peak_memory(device) - before
