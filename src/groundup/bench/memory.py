"""Peak memory of training steps, beside what the planner says they need."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from groundup.bench.options import MemoryOptions as Options
from groundup.config.errors import UserError
from groundup.contestants.contest import Contestant, race
from groundup.contestants.memory_cases import Setting, parts
from groundup.contestants.ours import How, our_trainer
from groundup.kernels.training import load_training_kernels
from groundup.planner.memory import Arithmetic, training_memory
from groundup.planner.params import count_parameters
from groundup.runtime.allocator import allocate_for_steps
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.measure import forget_peak_memory, peak_memory
from groundup.runtime.precision import pick_precision
from groundup.runtime.stored import PlainKernels
from groundup.runtime.timing import synchronize


@dataclass(frozen=True)
class _Case:
    """What a process of its own is given."""

    setting: Setting
    device: str
    precision: str


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
    settings = parts() if options.settings == "parts" else _sizes(options)
    precision = pick_precision(options.precision, device, n_embd=settings[0].model.n_embd)
    cpu = device.type == "cpu"
    kernels = load_training_kernels(say) if cpu else PlainKernels()
    how = Arithmetic(half=precision.half, cpu=cpu, kernels=kernels.lanes > 0, bf16=kernels.has_bf16)
    rows = []
    for setting in settings:
        planned = training_memory(
            setting.model,
            how,
            micro_batch_size=setting.micro_batch_size,
            recompute=setting.recompute,
            accumulates=False,
            optim=setting.optim,
        ).total
        case = _Case(setting, options.device, precision.name)
        try:
            timing = race({setting.name: _steps}, case, rounds=1, runs=1, warmup=1)[setting.name]
        except UserError as error:
            raise UserError(f"{error}; it needs {planned / 1e9:.1f} GB: name smaller --micro-batch-sizes") from None
        rows.append(
            {
                "setting": setting.name,
                "parameters": count_parameters(setting.model),
                "block_size": setting.model.block_size,
                "micro_batch_size": setting.micro_batch_size,
                "recompute": setting.recompute,
                "planned_bytes": planned,
                "measured_bytes": timing.peak_memory,
            }
        )
        share = timing.peak_memory / planned
        say(
            f"{setting.name:<52}planned {planned / 1e9:6.3f} GB   measured {timing.peak_memory / 1e9:6.3f} GB"
            f"   {share:.2f} of the plan"
        )
    return {
        "bench": "memory",
        "device": device_name(device),
        "torch": torch.__version__,
        "precision": precision.name,
        "rows": rows,
    }


def _sizes(options: Options) -> list[Setting]:
    """One model, by micro-batch."""
    sizes = [(size, False) for size in options.micro_batch_sizes]
    sizes += [(size, True) for size in options.micro_batch_sizes if size >= options.recompute_from]
    return [
        Setting(
            name=f"{size} x {options.model.block_size}{', blocks computed again' if recompute else ''}",
            model=options.model,
            micro_batch_size=size,
            recompute=recompute,
        )
        for size, recompute in sizes
    ]


def _steps(case: _Case) -> Contestant:
    setting = case.setting
    device = pick_device(case.device)
    allocate_for_steps(recompute=setting.recompute)  # before anything is large, as a run does
    precision = pick_precision(case.precision, device, n_embd=setting.model.n_embd)
    how = How(recompute=setting.recompute, optim=setting.optim)
    # The first step of any model loads what the libraries need: their pages are not the model's. What measuring this
    # machine has freed is given back, too: a step would find its memory there.
    tiny = dataclasses.replace(setting.model, n_layer=1, n_embd=16 * setting.model.n_head, block_size=16, vocab_size=64)
    our_trainer(tiny, 1, device=device, precision=precision, how=how).train_step()
    forget_peak_memory(device)
    before = peak_memory(device)
    trainer = our_trainer(setting.model, setting.micro_batch_size, device=device, precision=precision, how=how)

    def run() -> None:
        trainer.train_step()
        synchronize(device)

    return run, lambda: peak_memory(device) - before
