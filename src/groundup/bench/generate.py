"""Decoding throughput: one prompt continued by sampling, peers alternating with us, all with the same weights."""

import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from groundup.bench.options import GenerateOptions as Options
from groundup.checkpoint.model_folder import load_model
from groundup.config.generate import SamplingConfig
from groundup.contestants.contest import Contestant, Factory, Timing, median_ratio, race
from groundup.contestants.decoders import ctranslate2_decoder, llamacpp_decoder, write_models
from groundup.contestants.peers import nanogpt_model, transformers_model
from groundup.generation.engine import Engine
from groundup.generation.requests import Request
from groundup.generation.slots import count_slots
from groundup.inference.screened import MIN_WEIGHTS
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.planner.params import count_parameters
from groundup.runtime.device import device_name, pick_device
from groundup.runtime.measure import peak_memory, read_bandwidth
from groundup.runtime.stored import Weights
from groundup.runtime.timing import synchronize

BYTES: dict[str, float] = {
    "groundup int8": 1,
    "CTranslate2 int8": 1,
    "llama.cpp Q8_0": 34 / 32,
    "groundup fp16": 2,
    "transformers fp16": 2,
}
"""Per weight of a matrix; 4 for all others."""


OURS = ("groundup", "groundup fp16", "groundup int8")
"""A device has the first and one of the others."""


@dataclass(frozen=True, slots=True)
class Race:
    """What every contestant is given."""

    options: Options
    folder: Path
    """Where `write_models` wrote the weights."""


def bench(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Race decoding.

    Args:
        options: What to measure.
        say: Told a line per contestant.

    Returns:
        Tokens per second and ratios to us; and the share of the limit that decoding with one sample has where every
        token reads all weights once: their bytes over the memory's bandwidth. Ours in fp32 reads most of its head in 8
        bits (`ScreenedHead`), so it may pass that limit: its share of the bandwidth itself stands beside.
    """
    device = pick_device(options.device)
    contestants = _contestants(options, device, say)
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder), options.model, contestants)
        together = device.type != "cpu"  # the GPU waits while they import and compile
        shared = Race(options, Path(folder))
        timings = race(contestants, shared, rounds=options.rounds, runs=1, warmup=1, together=together)
    n_weights = count_parameters(options.model)
    result: dict[str, Any] = {
        "bench": "generate",
        "device": device_name(device),
        "threads": options.threads or torch.get_num_threads(),
        "torch": torch.__version__,
        "weights": n_weights,
        "prompt_tokens": options.prompt_tokens,
        "new_tokens": options.new_tokens,
        "samples": options.samples,
        "sampling": "temperature 0.8, top-k 50",
    }
    n_spared = 0
    if device.type == "cpu":
        kernels, n_head = load_kernels(say), options.model.vocab_size * options.model.n_embd
        result["read_gb_per_sec"] = round(read_bandwidth(kernels) / 1e9, 2)
        n_spared = 3 * n_head if isinstance(kernels, CompiledKernels) and n_head >= MIN_WEIGHTS else 0
    result["contestants"] = {}
    for name, timing in timings.items():
        result["contestants"][name] = row = _row(name, timing, timings, result)
        if name == OURS[0] and "share_of_read_limit" in row:
            row["share_of_bandwidth"] = round(row["share_of_read_limit"] * (1 - n_spared / (4 * n_weights)), 3)
        limit = f"  {row['share_of_read_limit']:>4.0%} of the read limit" if "share_of_read_limit" in row else ""
        say(
            f"{name:<18}{row['tokens_per_sec']:>10,.1f} tokens/s  {row['peak_memory_mb']:>6,} MB"
            f"  {row['times_our_time']:.2f} times our time{limit}"
        )
    return result


def _contestants(options: Options, device: torch.device, say: Callable[[str], None]) -> dict[str, Factory]:
    cpu = device.type == "cpu"
    contestants: dict[str, Factory] = {"groundup": partial(_ours, weights="fp32")}
    if cpu:
        contestants["groundup int8"] = partial(_ours, weights="int8")
    if device.type == "cuda":
        contestants["groundup fp16"] = partial(_ours, weights="fp16")
    if options.peers and _is_there("transformers", say):
        contestants["transformers"] = _transformers
        if device.type == "cuda":
            contestants["transformers fp16"] = partial(_transformers, dtype=torch.float16)
    if options.peers and cpu and _is_there("ctranslate2", say):
        contestants["CTranslate2"] = partial(_ctranslate2, compute_type="float32")
        contestants["CTranslate2 int8"] = partial(_ctranslate2, compute_type="int8")
    if options.peers and cpu and options.samples == 1 and _is_there("xllamacpp", say) and _is_there("gguf", say):
        contestants["llama.cpp F32"] = partial(_llamacpp, file="f32.gguf")
        contestants["llama.cpp Q8_0"] = partial(_llamacpp, file="q8_0.gguf")
    if options.nanogpt is not None:
        contestants["nanoGPT"] = _nanogpt
    return contestants


def _is_there(package: str, say: Callable[[str], None]) -> bool:
    there = importlib.util.find_spec(package) is not None
    if not there:
        say(f"{package} is not installed and does not run beside us: pip install groundup[bench]")
    return there


def _row(name: str, timing: Timing, timings: dict[str, Timing], result: dict[str, Any]) -> dict[str, Any]:
    """The figures of one contestant; ratios of fewer bits are to our fewer bits."""
    ours = timings[next((ours for ours in OURS[::-1] if ours in timings and name in BYTES), OURS[0])]
    rate = result["new_tokens"] * result["samples"] / timing.median
    row = {
        "tokens_per_sec": round(rate, 2),
        "peak_memory_mb": round(timing.peak_memory / 1e6),
        "times_our_time": round(median_ratio(ours, timing), 3),
    }
    if result["samples"] == 1 and "read_gb_per_sec" in result:
        row["share_of_read_limit"] = round(
            rate * result["weights"] * BYTES.get(name, 4) / 1e9 / result["read_gb_per_sec"], 3
        )
    return row


def _start(race: Race) -> tuple[torch.device, torch.Tensor]:
    options = race.options
    if options.threads:
        torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(options.model.vocab_size, (options.prompt_tokens,), generator=generator)
    return pick_device(options.device), prompt


def _ours(race: Race, *, weights: Weights) -> Contestant:
    device, prompt = _start(race)
    options = race.options
    model = load_model(race.folder / "groundup", device=device, weights=weights, rows=options.samples).model
    sampling = SamplingConfig(temperature=0.8, top_k=50)

    # One for all turns, as a server and a dialogue have it; no turn finds anything of the one before, in whole chunks.
    engine = Engine(model, n_slots=count_slots(model, options.samples), chunk=options.model.block_size)
    request = Request(
        prompt=tuple(prompt.tolist()), max_new_tokens=options.new_tokens, sampling=sampling, n=options.samples
    )

    def run() -> None:
        engine.submit(request)
        while engine.busy:
            engine.tick()
        synchronize(device)

    return run, lambda: peak_memory(device)


def _transformers(race: Race, *, dtype: torch.dtype = torch.float32) -> Contestant:
    device, prompt = _start(race)
    options = race.options
    model = transformers_model(options.model).to(device, dtype).eval()
    idx = prompt.expand(options.samples, -1).to(device)

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


def _nanogpt(race: Race) -> Contestant:
    device, prompt = _start(race)
    options = race.options
    model = nanogpt_model(Path(str(options.nanogpt)), options.model).to(device).eval()
    idx = prompt.expand(options.samples, -1).to(device)

    def run() -> None:
        model.generate(idx, options.new_tokens, temperature=0.8, top_k=50)
        synchronize(device)

    return run, lambda: peak_memory(device)


def _ctranslate2(race: Race, *, compute_type: str) -> Contestant:
    device, prompt = _start(race)
    options = race.options
    run = ctranslate2_decoder(
        race.folder / "ct2",
        prompt.tolist(),
        new_tokens=options.new_tokens,
        samples=options.samples,
        threads=options.threads or torch.get_num_threads(),
        compute_type=compute_type,
    )
    return run, lambda: peak_memory(device)


def _llamacpp(race: Race, *, file: str) -> Contestant:
    device, prompt = _start(race)
    options = race.options
    threads = options.threads or torch.get_num_threads()
    run = llamacpp_decoder(race.folder / file, prompt.tolist(), new_tokens=options.new_tokens, threads=threads)
    return run, lambda: peak_memory(device)
