"""Training throughput: whole steps (data, forward, backward, clipping, optimizer), peers alternating with us."""

import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from groundup.bench.options import TrainOptions as Options
from groundup.config.model import GPTConfig
from groundup.contestants.contest import Contestant, Factory, median_ratio, race
from groundup.contestants.ours import How, our_trainer, random_ids
from groundup.contestants.peers import nanogpt_model, transformers_model
from groundup.planner.flops import flops_per_token
from groundup.planner.params import count_parameters
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.measure import GEMM_SHAPE, gemm, known_peak_flops, peak_memory
from groundup.runtime.precision import Precision, pick_precision
from groundup.runtime.timing import synchronize


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Race whole training steps.

    Args:
        options: What to measure.
        say: Told a line per contestant.

    Returns:
        Tokens per second, MFU, ratios to us, peak memory, and what it was measured on.
    """
    device = pick_device(options.device)
    precision = pick_precision(options.precision, device, n_embd=options.model.n_embd)
    contestants: dict[str, Factory] = {"groundup": _ours}
    if options.nanogpt is not None:
        contestants["nanoGPT"] = _nanogpt
        if device.type == "cpu" and precision.half:
            contestants["nanoGPT fp32"] = _nanogpt_fp32
    if options.transformers and importlib.util.find_spec("transformers"):
        contestants["transformers"] = _transformers
    known = known_peak_flops(device, precision.name)
    if known is None:
        contestants["matrix products alone"] = _products
    timings = race(contestants, options, rounds=options.rounds, runs=options.steps, starts=options.starts)
    flops = flops_per_token(options.model, options.model.block_size)
    tokens = options.micro_batch_size * options.model.block_size
    products = timings.pop("matrix products alone", None)
    peak = 2 * math.prod(GEMM_SHAPE) / products.median if products else known or math.nan
    result: dict[str, Any] = {
        "bench": "train",
        "device": device_name(device),
        "threads": options.threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": precision.name,
        "compile": options.compile,
        "parameters": count_parameters(options.model),
        "micro_batch_size": options.micro_batch_size,
        "block_size": options.model.block_size,
        "peak_flops": peak,
        "peak_flops_from": "data sheet" if known else "a product of 2048 x 768 x 3072 in the same run",
        "contestants": {},
    }
    for name, timing in timings.items():
        speed = tokens / timing.median
        row = result["contestants"][name] = {
            "tokens_per_sec": round(speed),
            "ms_per_step": round(1e3 * timing.median, 3),
            "mfu": round(speed * flops / peak, 4),
            "peak_memory_mb": round(timing.peak_memory / 1e6),
            "times_our_time": round(median_ratio(timings["groundup"], timing), 3),
        }
        say(
            f"{name:<14}{speed:>10,.0f} tokens/s  MFU {row['mfu']:5.1%}  {row['peak_memory_mb']:>6,} MB"
            f"  {row['times_our_time']:.2f} times our time"
        )
    return result


def _start(options: Options) -> tuple[torch.device, Precision]:
    """What every contestant computes on, and how."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    return device, pick_precision(options.precision, device, n_embd=options.model.n_embd)


def _products(options: Options) -> Contestant:
    """The ceiling: nothing but one of GPT-2's products."""
    device, precision = _start(options)
    return gemm(device, precision.name), lambda: 0


def _ours(options: Options) -> Contestant:
    device, precision = _start(options)
    trainer = our_trainer(
        options.model, options.micro_batch_size, device=device, precision=precision, how=How(compiled=options.compile)
    )

    def run() -> None:
        trainer.train_step()
        synchronize(device)

    return run, lambda: peak_memory(device)


def peer_step(
    model: GPTConfig,
    micro_batch_size: int,
    precision: Precision,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    grad_accum_steps: int = 1,
) -> Contestant:
    """A step as nanoGPT's script makes it: batches by stacking slices at random offsets, clip, step, zero."""
    data = random_ids(model).astype(np.uint16)
    T, B, device = model.block_size, micro_batch_size, precision.device  # noqa: N806
    scaler = torch.amp.GradScaler(device.type, enabled=precision.needs_scaler)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def batch() -> list[torch.Tensor]:
        offsets = torch.randint(len(data) - T, (B,)).tolist()
        pair = [
            torch.stack([torch.from_numpy(data[i : i + T].astype(np.int64)) for i in starts])
            for starts in (offsets, [i + 1 for i in offsets])
        ]
        if device.type != "cuda":
            return pair
        return [ids.pin_memory().to(device, non_blocking=True) for ids in pair]

    x, y = batch()

    def run() -> None:
        nonlocal x, y
        for _ in range(grad_accum_steps):
            with precision.autocast():
                loss = loss_of(x, y) / grad_accum_steps
            x, y = batch()  # while a GPU computes
            torch.autograd.backward(scaler.scale(loss))
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        synchronize(device)

    return run, lambda: peak_memory(device)


def _nanogpt(options: Options) -> Contestant:
    _, precision = _start(options)
    checkout, compiled = Path(str(options.nanogpt)), options.compile != "off"
    return nanogpt_step(options.model, options.micro_batch_size, precision, checkout, compiled=compiled)


def _nanogpt_fp32(options: Options) -> Contestant:
    return _nanogpt(replace(options, precision="fp32"))


def _transformers(options: Options) -> Contestant:
    _, precision = _start(options)
    return transformers_step(options.model, options.micro_batch_size, precision, compiled=options.compile != "off")


def nanogpt_step(
    config: GPTConfig,
    micro_batch_size: int,
    precision: Precision,
    checkout: Path,
    *,
    compiled: bool,
    grad_accum_steps: int = 1,
) -> Contestant:
    """A training step of nanoGPT."""
    model = nanogpt_model(checkout, config).to(precision.device)
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), precision.device.type)
    forward = torch.compile(model) if compiled else model
    return peer_step(
        config, micro_batch_size, precision, lambda x, y: forward(x, y)[1], optimizer, grad_accum_steps=grad_accum_steps
    )


def transformers_step(
    config: GPTConfig, micro_batch_size: int, precision: Precision, *, compiled: bool, grad_accum_steps: int = 1
) -> Contestant:
    """A training step of Hugging Face's GPT-2."""
    model = transformers_model(config).to(precision.device).train()
    fused = precision.device.type == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=fused)
    forward = torch.compile(model) if compiled else model

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # Its own labels are the inputs, shifted inside; the work is the same as with the true next tokens.
        return forward(input_ids=x, labels=x, use_cache=False).loss

    return peer_step(config, micro_batch_size, precision, loss_of, optimizer, grad_accum_steps=grad_accum_steps)
