"""What each benchmark can be told. Flags stand apart from what they measure: help and mistakes need no PyTorch."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from groundup.config.errors import UsageError, UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import GPT2, RECIPES
from groundup.config.train import DeviceChoice, PrecisionChoice
from groundup.contestants.gpu_cases import chosen
from groundup.terminal.absent import is_absent
from groundup.terminal.waiting import own_cores

NANOGPT_CPU = GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=64, vocab_size=65, bias=False)
"""The model of nanoGPT's published CPU setting."""
DEMO = replace(RECIPES["shakespeare"].model, vocab_size=65)
"""The shape of the demo's."""
NO_GPU = "this machine has no GPU that PyTorch can use; --device cpu tries the command with tiny models"


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """Measure one GPU: training from 124M to XL beside nanoGPT and transformers, decoding, and memory."""

    seconds: int = 480
    """No group of contestants is begun that is not expected to end within it; 210 leaves out the largest models."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where to compute; on a CPU tiny models show that the command runs."""
    rounds: int = 3
    """Turns of each contestant; medians are taken over them."""
    nanogpt: Path | None = None
    """A checkout of nanoGPT, to run beside us. Its model.py is imported: only name a folder you trust."""
    only: str = ""
    """Measure only the cases whose name holds one of these texts, separated by semicolons."""
    profile: Path | None = None
    """A folder that gets, for each of our cases, a table of the kernels that a step spends its time in."""
    json: Path | None = None
    """A file that is written again after each group, so that what was measured is not lost."""

    def __post_init__(self) -> None:
        """Something is to be measured."""
        chosen(self.only, nanogpt=self.nanogpt is not None)

    def check_gpu(self) -> None:
        """See that there may be a GPU, without PyTorch.

        Raises:
            UserError: There is none for certain.
        """
        if self.device == "auto" and is_absent("cuda") and is_absent("mps"):
            raise UserError(NO_GPU)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Measure training throughput. The defaults are nanoGPT's published CPU setting."""

    model: GPTConfig = NANOGPT_CPU
    micro_batch_size: int = 12
    """Sequences per step."""
    device: DeviceChoice = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    precision: PrecisionChoice = "auto"
    """Of products; the same for everybody. nanoGPT, whose script has fp32 on a CPU, has a turn in that, too."""
    compile: Literal["off", "whole", "parts"] = "off"
    """Compile everybody's model; parts compiles ours block by block, and the peers' whole."""
    threads: int = 0
    """CPU threads of each contestant; 0 takes PyTorch's choice."""
    starts: int = 3
    """Processes of each contestant, one after the other: some are faster than others, by chance."""
    rounds: int = 3
    """Turns of each process; medians are taken over all of them."""
    steps: int = 20
    """Steps per turn."""
    nanogpt: Path | None = None
    """A checkout of nanoGPT, to run beside us. Its model.py is imported: only name a folder you trust."""
    transformers: bool = True
    """Run Hugging Face transformers beside us, where it is installed."""


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Measure decoding: temperature 0.8, top-k 50. The default is GPT-2 124M with random weights."""

    model: GPTConfig = GPT2
    prompt_tokens: int = 64
    """Length of the prompt."""
    new_tokens: int = 64
    """Tokens drawn in a turn."""
    samples: int = 1
    """Continuations side by side. llama.cpp runs with one."""
    device: DeviceChoice = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    threads: int = 0
    """CPU threads of each contestant; 0 takes PyTorch's choice."""
    rounds: int = 3
    """Turns of each contestant; medians are taken over them."""
    nanogpt: Path | None = None
    """A checkout of nanoGPT, to run beside us. Its model.py is imported: only name a folder you trust."""
    peers: bool = True
    """Run transformers and, on a CPU, CTranslate2 and llama.cpp (xllamacpp) beside us, where they are installed."""

    def __post_init__(self) -> None:
        """Check ranges."""
        total = self.prompt_tokens + self.new_tokens
        if self.prompt_tokens < 1 or self.new_tokens < 1 or total > self.model.block_size:
            raise UsageError(
                f"prompt-tokens and new-tokens must be at least 1 and fit into the context of {self.model.block_size}"
                f" together, got {self.prompt_tokens} and {self.new_tokens}"
            )


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Measure multiple-choice scoring. The default is GPT-2 124M with random weights, in float32."""

    model: GPTConfig = GPT2
    path: Path | None = None
    """A file of HellaSwag's form, for GPT-2's vocabulary; without it, random tokens of about its lengths."""
    examples: int = 16
    """Examples to score."""
    device: DeviceChoice = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    threads: int = 0
    """CPU threads of each contestant; 0 takes PyTorch's choice."""
    rounds: int = 3
    """Turns of each contestant; medians are taken over them."""


@dataclass(frozen=True, kw_only=True)
class BusyOptions:
    """Measure how the demo's training on a CPU stands other programs, by how its threads wait."""

    model: GPTConfig | ModernConfig = DEMO
    micro_batch_size: int = 16
    """Sequences per step."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of training."""
    others: int = 4
    """Programs beside it that compute without end."""
    seconds: int = 4
    """Of each turn."""
    rounds: int = 3
    """Turns of each way to wait; medians are taken over them."""


@dataclass(frozen=True, kw_only=True)
class ScalingOptions:
    """Measure how data parallelism scales on CPUs. The default model is the demo's."""

    model: GPTConfig | ModernConfig = DEMO
    micro_batch_size: int = 16
    """Sequences per step of each process."""
    processes: int = 2
    """Processes that share a step, with one thread each."""
    rounds: int = 7
    """Turns of each contestant; medians are taken over them."""
    steps: int = 5
    """Steps per turn."""

    def __post_init__(self) -> None:
        """Processes that share a core would measure something else."""
        cores = own_cores()
        if not 2 <= self.processes <= cores:
            raise UsageError(f"processes must be at least 2 and at most the cores, {cores}; got {self.processes}")


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """Measure the memory of training. The default model is GPT-2 124M."""

    model: GPTConfig = GPT2
    micro_batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    """Sequences per forward pass, one row of the table each."""
    recompute_from: int = 8
    """The least of them that is measured with --runtime.recompute, too."""
    settings: Literal["sizes", "parts"] = "sizes"
    """sizes of the micro-batch, or parts: ten settings that the formula counts differently, of small models."""
    device: DeviceChoice = "auto"
    """Where to compute; auto takes a GPU where there is one."""
    precision: PrecisionChoice = "auto"
    """Of products."""

    def __post_init__(self) -> None:
        """A table has a row."""
        if not self.micro_batch_sizes:
            raise UsageError("micro-batch-sizes needs a number at least")


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Measure checkpoints. The default is GPT-2 124M with AdamW in float32, 1.5 GB."""

    model: GPTConfig = GPT2
    folder: Path = Path()
    """Where to write, in a folder that is removed afterwards; up to four times the state must fit."""
    device: DeviceChoice = "cpu"
    """Where the state lies."""
    threads: int = 0
    """CPU threads; 0 takes PyTorch's choice."""
    rounds: int = 3
    """Turns of each way to save; medians are taken over them."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Measure a server: temperature 0.8, top-k 50, prompts that share nothing. The default is GPT-2 124M in int8."""

    model: GPTConfig = GPT2
    weights: Literal["fp32", "fp16", "bf16", "int8"] = "int8"
    """How groundup stores matrices; beside int8 llama.cpp has Q8_0, beside anything else F32."""
    clients: tuple[int, ...] = (1, 4, 16, 64)
    """Clients at a time, one measurement each."""
    requests: int = 2
    """Completions per client and turn."""
    prompt_tokens: int = 32
    """Length of a prompt."""
    new_tokens: int = 32
    """Tokens drawn per completion."""
    threads: int = 0
    """CPU threads of each server; 0 takes PyTorch's choice."""
    rounds: int = 2
    """Turns of each server."""
    peers: bool = True
    """Run llama.cpp's server beside ours, where xllamacpp is installed."""

    def __post_init__(self) -> None:
        """Check ranges."""
        total = self.prompt_tokens + self.new_tokens
        if total > self.model.block_size:
            raise UsageError(f"the context is {self.model.block_size} tokens, prompt-tokens and new-tokens are {total}")
        if not self.clients or not 1 <= min(self.clients) <= max(self.clients) <= 64:
            raise UsageError(f"clients must be 1 to 64, got {self.clients}")


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Measure the loader."""

    tokens: int = 200_000_000
    """Random tokens on the disk, 2 bytes each; more than memory holds for the limit of a real disk."""
    block_size: int = 1024
    """Tokens per sequence."""
    micro_batch_size: int = 16
    """Sequences per batch."""
    batches: int = 200
    """Batches per measurement."""
    folder: Path | None = None
    """A folder on the disk to measure; none is the system's place for temporary files."""
    step: bool = True
    """Measure a training step, too, of the model that `groundup bench train` runs by default."""
    threads: int = 0
    """CPU threads of the step; 0 takes PyTorch's choice."""

    def __post_init__(self) -> None:
        """A sequence and the token after it."""
        if self.tokens <= self.block_size:
            raise UsageError(f"tokens must be more than block-size, got {self.tokens} and {self.block_size}")


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Measure preparation with GPT-2's tokenizer."""

    path: Path | None = None
    """A folder of .jsonl files with a key "text"; without it, the plays: few words, as caches like."""
    megabytes: int = 256
    """Size of the made-up corpus: eight of our parts."""
    workers: int = os.cpu_count() or 1
    """Processes that tokenize, for everybody."""
    rounds: int = 3
    """Turns of each contestant; medians are taken over them."""
    gigatoken: bool = True
    """Run us with gigatoken, too, where it is installed."""

    def __post_init__(self) -> None:
        """Contestants read the same files."""
        if self.path and self.path.exists() and not any(self.path.glob("*.jsonl")):
            raise UsageError(f"path must be a folder of .jsonl files, got {self.path}")
