"""One GPU in a few minutes: training of every size of GPT-2, decoding, peers beside us, memory against the plan.

Steps are those of a run: 524,288 tokens for the small models, gathered from micro-batches, clipped, with the optimizer.
Contestants get ready together, because compiling keeps the CPU busy and not the GPU, and then work one at a time. As
many get ready together as the planner says fit on the card.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from groundup.bench import generate
from groundup.bench.options import NO_GPU, GenerateOptions
from groundup.bench.options import GpuOptions as Options
from groundup.bench.train import nanogpt_step, transformers_step
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.contestants.contest import Contestant, Factory, Timing, race
from groundup.contestants.gpu_cases import Case, chosen
from groundup.contestants.ours import How, our_trainer
from groundup.loop.trainer import Trainer
from groundup.planner.flops import flops_per_token
from groundup.planner.memory import Arithmetic, training_memory
from groundup.runtime.device import pick_device
from groundup.runtime.facts import machine_facts
from groundup.runtime.measure import gemm_rate, known_peak_flops, peak_memory
from groundup.runtime.memory import free_memory, release_cached
from groundup.runtime.precision import Precision, pick_precision
from groundup.runtime.timing import synchronize

SHARE = 0.9
"""Of the free memory: what contestants that wait in it together may need by the plan."""
PROCESS_BYTES = 1 << 30
"""What CUDA itself takes per process."""


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure decoding, and then training in groups that fit on the card together.

    Args:
        options: What to measure.
        say: Told a line per contestant.

    Returns:
        Tokens per second, MFU, ratios to our plain 124M, measured and planned peaks.

    Raises:
        UserError: There is no GPU.
    """
    start, device = time.monotonic(), pick_device(options.device)
    if device.type == "cpu" and options.device == "auto":
        raise UserError(NO_GPU)
    precision = pick_precision("auto" if device.type == "cuda" else "fp32", device, n_embd=768)
    listed = chosen(options.only, device.type, nanogpt=options.nanogpt is not None)
    result: dict[str, Any] = {
        "bench": "gpu",
        **machine_facts(device),
        "precision": precision.name,
        "peak_flops": known_peak_flops(device, precision.name) or gemm_rate(device, precision.name),
        "training": {},
        "failed": {},
        "left_out": [],
    }
    if not options.only:
        result["decoding"] = _decoding(options, device, say)
        _keep(result, options)
    release_cached(device)
    for group in groups(listed, planned(device, precision), int(SHARE * free_memory(device))):
        names = [case.name for case in group]
        if time.monotonic() - start + max(case.seconds for case in group) > options.seconds:
            result["left_out"] += names
        else:
            _measure(group, options, precision, result, say)
        _keep(result, options)
    for name in result["left_out"]:
        say(f"{name}: left out, the time does not suffice (--seconds)")
    return result


def groups(listed: list[Case], bytes_of: Callable[[Case], int], memory: int) -> list[list[Case]]:
    """Cut the cases, in their order, into groups that fit into memory together; one that does not fit goes alone."""
    cut: list[list[Case]] = []
    left = -1
    for case in listed:
        need = bytes_of(case) + PROCESS_BYTES
        if need > left:
            cut.append([])
            left = memory
        cut[-1].append(case)
        left -= need
    return cut


def planned(device: torch.device, precision: Precision) -> Callable[[Case], int]:
    """What the planner says that a case needs; of a peer, with whole logits beside what we need."""
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0

    def bytes_of(case: Case) -> int:
        compiled, cpu = case.compile != "off", device.type == "cpu"
        how = Arithmetic(half=precision.half, cpu=cpu, compiled=compiled, device_memory=memory)
        total = training_memory(case.model, how, micro_batch_size=case.micro_batch_size).total
        whole = 10 * case.micro_batch_size * case.model.block_size * case.model.vocab_size
        return total + (whole if case.who != "groundup" else 0)

    return bytes_of


def _measure(
    group: list[Case], options: Options, precision: Precision, result: dict[str, Any], say: Callable[[str], None]
) -> None:
    contestants: dict[str, Factory] = {case.name: partial(_work, case) for case in group}
    runs, failures = group[0].runs, result["failed"]
    timings = race(contestants, options, rounds=options.rounds, runs=runs, warmup=2, together=True, failures=failures)
    bytes_of = planned(precision.device, precision)
    for case in group:
        if case.name not in timings:
            say(f"{case.name:<34} failed: {result['failed'].get(case.name)}")
            continue
        result["training"][case.name] = row = _row(case, timings[case.name], result, bytes_of(case))
        say(
            f"{case.name:<34}{row['tokens_per_sec']:>10,} tokens/s  MFU {row['mfu']:6.1%}"
            f"  {row['peak_memory_gb']:6.2f} GB (planned {row['planned_gb']:.2f})"
            f"  {row['times_our_time']:.2f} times our time"
        )


def _row(case: Case, timing: Timing, result: dict[str, Any], planned_bytes: int) -> dict[str, Any]:
    speed = case.tokens_per_step / timing.median
    ours = next(iter(result["training"].values()), {"tokens_per_sec": speed})["tokens_per_sec"]
    flops = flops_per_token(case.model, case.model.block_size)
    return {
        "tokens_per_sec": round(speed),
        "ms_per_step": round(1e3 * timing.median, 1),
        "mfu": round(speed * flops / result["peak_flops"], 4),
        "micro_batch_size": case.micro_batch_size,
        "tokens_per_step": case.tokens_per_step,
        "peak_memory_gb": round(timing.peak_memory / 1e9, 2),
        "planned_gb": round(planned_bytes / 1e9, 2),
        "times_our_time": round(ours / speed, 3),
        "rounds_ms": [round(1e3 * s, 1) for s in timing.seconds],
    }


def _work(case: Case, options: Options) -> Contestant:
    """A contestant: whole steps of a case."""
    device = pick_device(options.device)
    precision = pick_precision("auto" if device.type == "cuda" else "fp32", device, n_embd=768)
    if case.attention == "flash":
        torch.backends.cuda.enable_cudnn_sdp(enabled=False)
    compiled = case.compile if device.type == "cuda" else "off"
    size, steps = case.micro_batch_size, case.grad_accum_steps
    if isinstance(case.model, GPTConfig) and case.who != "groundup":
        if case.who == "transformers":
            return transformers_step(case.model, size, precision, compiled=compiled != "off", grad_accum_steps=steps)
        checkout = Path(str(options.nanogpt))
        return nanogpt_step(case.model, size, precision, checkout, compiled=compiled != "off", grad_accum_steps=steps)
    how = How(compiled=compiled, narrow_stream=case.narrow_stream, grad_accum_steps=steps, optim=case.optim)
    trainer = our_trainer(case.model, size, device=device, precision=precision, how=how)

    def run() -> None:
        trainer.train_step()
        synchronize(device)

    def peak() -> int:
        most = peak_memory(device)
        if options.profile:
            options.profile.mkdir(parents=True, exist_ok=True)
            (options.profile / f"{case.name.replace(' ', '-')}.txt").write_text(_kernels(trainer), encoding="utf-8")
        return most

    return run, peak


def _kernels(trainer: Trainer) -> str:
    """The kernels that take longest in one step, as PyTorch's profiler tells."""
    cuda = trainer.device.type == "cuda"
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it would tell that it starts and stops
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        trainer.train_step()
        synchronize(trainer.device)
    order = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    return profile.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=90)


def _decoding(options: Options, device: torch.device, say: Callable[[str], None]) -> Mapping[str, Any]:
    chosen = GenerateOptions(device=options.device, rounds=2, new_tokens=256, nanogpt=options.nanogpt)
    if device.type == "cpu":
        tiny = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=16, vocab_size=64)
        chosen = replace(chosen, model=tiny, prompt_tokens=4, new_tokens=4, peers=False)
    try:
        return generate.bench(chosen, say)
    except UserError as error:
        say(f"decoding: {error}")
        return {"failed": str(error)}


def _keep(result: dict[str, Any], options: Options) -> None:
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
