"""Decoding throughput: one prompt continued by sampling, peers alternating with us."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.bench.contest import Factory, median_ratio, race
from groundup.bench.peers import nanogpt_model, transformers_model
from groundup.config.errors import UsageError, UserError
from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig
from groundup.config.presets import GPT2
from groundup.generation.engine import generate_ids
from groundup.model.build import build_model
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.swap import use_matmul
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.matmul import pick_matmul
from groundup.runtime.measure import copy_bandwidth, peak_memory, synchronize

Work = tuple[Callable[[], None], Callable[[], int]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure decoding: temperature 0.8, top-k 50. The default is GPT-2 124M with random weights."""

    model: GPTConfig = GPT2
    prompt_tokens: int = 64
    """Length of the prompt."""
    new_tokens: int = 64
    """Tokens drawn in a turn."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads of each contestant; 0 takes PyTorch's choice."""
    rounds: int = 3
    """Turns of each contestant; medians are taken over them."""
    nanogpt: Path | None = None
    """A checkout of nanoGPT, to run beside us. Its model.py is imported: only name a folder you trust."""
    transformers: bool = True
    """Run Hugging Face transformers beside us, where it is installed."""

    def __post_init__(self) -> None:
        """Check ranges."""
        total = self.prompt_tokens + self.new_tokens
        if self.prompt_tokens < 1 or self.new_tokens < 1 or total > self.model.block_size:
            raise UsageError(
                f"prompt-tokens and new-tokens must be at least 1 and fit into the context of {self.model.block_size}"
                f" together, got {self.prompt_tokens} and {self.new_tokens}"
            )


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Race decoding.

    Args:
        options: What to measure.
        say: Told a line per contestant.

    Returns:
        Tokens per second and ratios to us; and the limit of decoding with one sample: every token reads all weights
        once, so it takes no less than their bytes over the memory's bandwidth.

    Raises:
        UserError: A peer is not where it was said to be.
    """
    if options.nanogpt is not None and not (options.nanogpt / "model.py").is_file():
        raise UserError(f"{options.nanogpt} is not a checkout of nanoGPT: it has no model.py")
    device = pick_device(options.device)
    contestants: dict[str, Factory] = {"groundup": _ours}
    if options.transformers and importlib.util.find_spec("transformers"):
        contestants["transformers"] = _transformers
    if options.nanogpt is not None:
        contestants["nanoGPT"] = _nanogpt
    timings = race(contestants, options, rounds=options.rounds, runs=1, warmup=1)
    weight_bytes = sum(4 * p.numel() for p in _model(options, torch.device("meta")).parameters())
    result: dict[str, Any] = {
        "bench": "generate",
        "device": device_name(device),
        "threads": options.threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "weight_bytes": weight_bytes,
        # A copy reads and writes; decoding only reads.
        "limit_tokens_per_sec": round(copy_bandwidth(device) / weight_bytes, 1),
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "contestants": {},
    }
    for name, timing in timings.items():
        row = {
            "tokens_per_sec": round(options.new_tokens / timing.median, 2),
            "peak_memory_mb": round(timing.peak_memory / 1e6),
            "times_our_time": round(median_ratio(timings["groundup"], timing), 3),
        }
        result["contestants"][name] = row
        say(
            f"{name:<14}{row['tokens_per_sec']:>10,.1f} tokens/s  {row['peak_memory_mb']:>6,} MB"
            f"  {row['times_our_time']:.2f} times our time"
        )
    return result


def _model(options: Options, device: torch.device) -> GPT:
    with device:
        return GPT(options.model)


def _start(options: Options) -> tuple[torch.device, torch.Tensor]:
    if options.threads:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    generator = torch.Generator().manual_seed(0)
    return device, torch.randint(options.model.vocab_size, (options.prompt_tokens,), generator=generator)


def _ours(options: Options) -> Work:
    device, prompt = _start(options)
    model = init_weights(build_model(options.model), seed=0).to(device).eval()
    use_matmul(model, pick_matmul(device, rows=1, n_embd=options.model.n_embd, training=False))
    sampling = SamplingConfig(temperature=0.8, top_k=50)

    def run() -> None:
        for _ in generate_ids(model, prompt.tolist(), max_new_tokens=options.new_tokens, sampling=sampling):
            pass
        synchronize(device)

    return run, lambda: peak_memory(device)


def _transformers(options: Options) -> Work:
    device, prompt = _start(options)
    model = transformers_model(options.model).to(device).eval()
    idx = prompt[None].to(device)

    def run() -> None:
        model.generate(
            idx,
            attention_mask=torch.ones_like(idx),
            do_sample=True,
            temperature=0.8,
            top_k=50,
            min_new_tokens=options.new_tokens,
            max_new_tokens=options.new_tokens,
            pad_token_id=0,
        )
        synchronize(device)

    return run, lambda: peak_memory(device)


def _nanogpt(options: Options) -> Work:
    device, prompt = _start(options)
    model = nanogpt_model(Path(str(options.nanogpt)), options.model).to(device).eval()
    idx = prompt[None].to(device)

    def run() -> None:
        model.generate(idx, options.new_tokens, temperature=0.8, top_k=50)
        synchronize(device)

    return run, lambda: peak_memory(device)
