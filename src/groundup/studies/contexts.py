"""Reading and decoding apart from each other: what a long text costs before its first new token, and after it."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig
from groundup.generation.engine import generate_ids
from groundup.inference.weights import use_weights
from groundup.kernels.compiled import load_kernels
from groundup.model.build import Transformer, build_model
from groundup.model.init import init_weights
from groundup.planner.flops import forward_flops_per_token
from groundup.runtime.facts import machine_facts
from groundup.runtime.measure import gemm_rate
from groundup.runtime.stored import Weights
from groundup.studies.options import ContextsOptions as Options

MODES: tuple[Weights, ...] = ("fp32", "int8")


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure 32 and 8 bits per weight in turns.

    Args:
        options: What to measure.
        say: Called with a line for each.

    Returns:
        For each: tokens per second behind either prompt and their ratio, seconds to the first token after the long
        one, and the FLOP/s of reading it, as a share of those of a large product in the same turns.
    """
    models = {name: _model(options.model, name, say) for name in MODES}
    products: list[float] = []
    first: dict[tuple[str, int], list[float]] = {}
    each: dict[tuple[str, int], list[float]] = {}
    for turn in range(1 + options.rounds):  # the first one warms up
        products.append(gemm_rate(torch.device("cpu"), "fp32"))
        for name, model in models.items():
            for length in (options.short, options.long):
                ends = _ends(model, length, options.new_tokens)
                if turn:
                    first.setdefault((name, length), []).append(ends[1] - ends[0])
                    each.setdefault((name, length), []).append((ends[-1] - ends[1]) / (options.new_tokens - 1))
    rows: dict[str, Any] = {}
    for name in MODES:
        short, long = (1 / statistics.median(each[name, length]) for length in (options.short, options.long))
        waited = statistics.median(first[name, options.long])
        rate = reading_flops(options.model, options.long) / waited
        rows[name] = {
            "tokens_per_sec": {str(options.short): round(short, 2), str(options.long): round(long, 2)},
            "long_over_short": round(long / short, 3),
            "first_token_seconds": round(waited, 3),
            "share_of_gemm_rate": round(rate / statistics.median(products[1:]), 3),
        }
        say(
            f"{name:<6}{short:>7,.1f} tokens/s behind {options.short} tokens, {long:,.1f} behind {options.long}"
            f" ({long / short:.0%}); first token of those after {waited:.2f} s, {rate / 1e9:,.0f} GFLOP/s"
            f" ({rows[name]['share_of_gemm_rate']:.0%} of a product's)"
        )
    return {
        "bench": "contexts",
        **machine_facts(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "gemm_gflops": round(statistics.median(products[1:]) / 1e9, 1),
        "modes": rows,
    }


def reading_flops(config: GPTConfig, length: int) -> float:
    """FLOPs of reading a prompt: attention looks back at half of it on average, and the head is for its end alone."""
    head = 2 * config.n_embd * config.vocab_size
    return length * (forward_flops_per_token(config, length // 2) - head) + head


def _model(config: GPTConfig, weights: Weights, say: Callable[[str], None]) -> Transformer:
    model = init_weights(build_model(config), seed=0).eval()
    use_weights(model, weights, load_kernels(say))
    return model


def _ends(model: Transformer, length: int, new_tokens: int) -> list[float]:
    """When a text began, and when each of its tokens was there."""
    prompt = torch.randint(model.config.vocab_size, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    sampling = SamplingConfig(temperature=0.8, top_k=50)
    start = time.perf_counter()
    steps = generate_ids(model, prompt, max_new_tokens=new_tokens, sampling=sampling)
    return [start, *(time.perf_counter() for _ in steps)]
