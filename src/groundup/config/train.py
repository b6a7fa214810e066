"""One training run, as inert values. `training/build.py` turns them into objects."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from groundup.config.data import DataConfig
from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig, ModernConfig

DeviceChoice = Literal["auto", "cpu", "cuda", "mps"]
PrecisionChoice = Literal["auto", "fp32", "tf32", "bf16", "fp16"]

_MOST = 2**53
"""Tokens or steps: beyond it numbers in JSON and in floats are no longer exact."""
_LONGEST = 30 * 24 * 3600


def _end(path: Path) -> str:
    return Path(*path.parts[-2:]).as_posix()


def _require(condition: bool, message: str) -> None:  # noqa: FBT001
    if not condition:
        raise UsageError(message)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """The optimizer and its learning rate over time."""

    name: Literal["adamw", "muon"] = "adamw"
    """adamw: all weights at lr; muon: matrices inside the blocks at lr * muon_lr_ratio, the rest by adamw at lr."""
    lr: float = 6e-4
    """Peak learning rate; scales every weight's, whatever the optimizer."""
    min_lr_ratio: float = 0.1
    """Learning rate at the end of the decay, as a share of the peak."""
    warmup_steps: int = 100
    """Steps of linear growth to the peak."""
    weight_decay: float = 0.1
    """Decoupled decay (Loshchilov & Hutter 2019), on matrices only."""
    beta1: float = 0.9
    """Decay of the average of gradients."""
    beta2: float = 0.95
    """Decay of the average of squared gradients."""
    grad_clip: float = 1.0
    """Largest norm of the whole gradient; 0 turns clipping off."""
    beta2_half_life: int = 0
    """Tokens after which a squared gradient counts half, whatever the batch; 0 takes beta2 as it is."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """After warmup: half a cosine, or constant and then linearly down."""
    cooldown: float = 0.6
    """Share of the steps, the last ones, in which the linear schedule goes down."""
    average: float = 0.0
    """Decay per step of a moving average of the weights, which is then what is evaluated and kept; 0 is none."""
    muon_lr_ratio: float = 20 / 3
    """Learning rate of muon's matrices as a multiple of lr; adamw does not read it."""
    muon_cooldown: float = 0.0
    """As cooldown, for muon's matrices alone; 0 is the same."""
    muon_decay_ratio: float = 1.0
    """Weight decay of muon's matrices as a multiple of weight_decay."""
    muon_momentum: float = 0.95
    """Decay of muon's average of gradients."""
    muon_momentum_warmup: int = 0
    """Steps in which muon's momentum grows from 0.85 to muon_momentum."""
    cautious_decay: bool = False
    """Muon shrinks only what its update shrinks, too, and less as the learning rate falls."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("lr", "muon_lr_ratio", "weight_decay", "grad_clip", "muon_decay_ratio"):
            _require(math.isfinite(getattr(self, name)), f"optim.{name} must be a number, got {getattr(self, name)}")
        _require(0 < self.cooldown <= 1, f"optim.cooldown must be above 0 and at most 1, got {self.cooldown}")
        _require(0 <= self.muon_cooldown <= 1, f"optim.muon_cooldown must be in [0, 1], got {self.muon_cooldown}")
        _require(self.muon_decay_ratio >= 0, f"optim.muon_decay_ratio must be 0 or more, got {self.muon_decay_ratio}")
        for name in ("muon_momentum", "average"):
            _require(0 <= getattr(self, name) < 1, f"optim.{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("muon_momentum_warmup", "beta2_half_life"):
            _require(getattr(self, name) >= 0, f"optim.{name} must be 0 or more, got {getattr(self, name)}")
        _require(self.lr > 0, f"optim.lr must be above 0, got {self.lr}")
        _require(self.muon_lr_ratio > 0, f"optim.muon_lr_ratio must be above 0, got {self.muon_lr_ratio}")
        _require(
            0 <= self.min_lr_ratio <= 1,
            f"optim.min_lr_ratio, a share of optim.lr, must be in [0, 1], got {self.min_lr_ratio}",
        )
        _require(self.warmup_steps >= 0, f"optim.warmup_steps must be 0 or more, got {self.warmup_steps}")
        _require(self.weight_decay >= 0, f"optim.weight_decay must be 0 or more, got {self.weight_decay}")
        _require(0 <= self.beta1 < 1, f"optim.beta1 must be in [0, 1), got {self.beta1}")
        _require(0 <= self.beta2 < 1, f"optim.beta2 must be in [0, 1), got {self.beta2}")
        _require(self.grad_clip >= 0, f"optim.grad_clip must be 0 (off) or more, got {self.grad_clip}")

    def beta2_of(self, tokens_per_step: int) -> float:
        """Decay per step of the average of squared gradients."""
        return 0.5 ** (tokens_per_step / self.beta2_half_life) if self.beta2_half_life else self.beta2


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """What becomes of a step that looks wrong. All ranks decide alike, before any weight changes."""

    nonfinite: Literal["stop", "skip"] = "stop"
    """A loss or gradient that is NaN or infinite: stop the run, or skip the step (fp16's overflows always are)."""
    spikes: Literal["off", "warn", "skip", "stop"] = "warn"
    """A loss or gradient norm far above the median of the last 128 steps: say so, skip the step, or stop the run."""
    max_skips: int = 10
    """So many steps skipped in a row stop the run."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.max_skips >= 1, f"guard.max_skips must be at least 1, got {self.max_skips}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """When the run looks at itself."""

    every: int = 250
    """Steps between evaluations on the validation split; the last step is always evaluated."""
    max_tokens: int = 0
    """Validation tokens per evaluation; 0 is the whole split."""
    sample_every: int = 500
    """Steps between samples of text; 0 turns them off."""
    sample_tokens: int = 200
    """New tokens per sample."""
    hellaswag_every: int = 0
    """Steps between measurements of HellaSwag, and after the last; 0 turns them off."""
    hellaswag_path: Path | None = None
    """A .jsonl file of HellaSwag's form; none downloads its validation set into data.cache_dir."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.every >= 1, f"eval.every must be at least 1, got {self.every}")
        _require(self.max_tokens >= 0, f"eval.max_tokens must be 0 (all) or more, got {self.max_tokens}")
        _require(self.sample_every >= 0, f"eval.sample_every must be 0 (off) or more, got {self.sample_every}")
        _require(self.sample_tokens >= 1, f"eval.sample_tokens must be at least 1, got {self.sample_tokens}")
        _require(self.hellaswag_every >= 0, f"eval.hellaswag_every must be 0 (off) or more, got {self.hellaswag_every}")
        _require(
            self.hellaswag_every > 0 or self.hellaswag_path is None,
            f"eval.hellaswag_path {self.hellaswag_path} is never read: give eval.hellaswag_every, too",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """What is kept on disk."""

    every: int = 250
    """Steps between checkpoints; the last step and an interrupt always save."""
    keep_last: int = 2
    """How many of the newest checkpoints are kept, beside the best; at least 2, as one may be damaged."""
    background: Literal["auto", "on", "off"] = "auto"
    """Write while training goes on, from a copy in memory as large as a checkpoint; auto does so on a GPU."""
    growth: bool = False
    """Keep the weights after 0, 1, 2, 4, 8, ... steps in RUN/growth, so that `groundup serve` shows how they grow."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.every >= 1, f"checkpoint.every must be at least 1, got {self.every}")
        _require(self.keep_last >= 2, f"checkpoint.keep_last must be at least 2, got {self.keep_last}")


@dataclass(frozen=True, kw_only=True, slots=True)
class LogConfig:
    """Where metrics go besides metrics.jsonl, which is always written."""

    tensorboard: bool = False
    """Write event files to RUN/tensorboard (extra: tensorboard)."""
    wandb: Literal["off", "offline", "online"] = "off"
    """Weights & Biases (extra: wandb): offline writes to RUN/wandb, for `wandb sync`; online also sends it."""
    wandb_project: str = "groundup"
    """Project of Weights & Biases that the run is listed in."""

    def __post_init__(self) -> None:
        """Check what the service would only refuse later."""
        _require(
            0 < len(self.wandb_project) <= 128 and not set("/\\#?%:") & set(self.wandb_project),
            f"log.wandb_project must be 1 to 128 characters, none of / \\ # ? % :, got {self.wandb_project!r}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeConfig:
    """How the machine is used. `auto` is resolved once, and the resolved value is what is logged."""

    device: DeviceChoice = "auto"
    """Where to compute: auto takes cuda, then mps, then cpu."""
    precision: PrecisionChoice = "auto"
    """Arithmetic of the matrix products: auto takes what the hardware does well."""
    matmul: Literal["auto", "default", "onednn", "kernels"] = "auto"
    """fp32 products on a CPU: PyTorch's default (MKL), oneDNN, or that with kernels of ours; auto takes the fastest."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile: auto measures both and keeps the faster, when the run is long enough to pay for it."""
    micro_batch_size: int | Literal["auto"] = 12
    """Sequences per forward pass, or auto: as many as fit in memory. Accumulation makes up tokens_per_step."""
    recompute: bool = False
    """Keep only the input of each block, and compute the rest again going back: less memory, a third more work."""
    threads: int = 0
    """CPU threads of each process; 0 takes PyTorch's choice, or as many as other programs leave cores at the start."""
    parallel: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """How torchrun's processes share the work: with ddp each has the model, with fsdp a part; auto is ddp."""
    timeout: float = 600.0
    """Seconds to wait for another process before it is taken for dead."""
    check_replicas_every: int = 0
    """Steps between comparisons of the weights across processes; 0 compares at the start and at the end only."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(
            self.micro_batch_size == "auto" or self.micro_batch_size >= 1,
            f"runtime.micro_batch_size must be auto or at least 1, got {self.micro_batch_size}",
        )
        _require(0 <= self.threads <= 1024, f"runtime.threads must be 0 (automatic) to 1024, got {self.threads}")
        _require(
            1 <= self.timeout <= _LONGEST,
            f"runtime.timeout must be 1 to {_LONGEST} seconds (30 days), got {self.timeout}",
        )
        _require(
            self.check_replicas_every >= 0,
            f"runtime.check_replicas_every must be 0 (off) or more, got {self.check_replicas_every}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoRAConfig:
    """Fine-tune a low-rank change to the matrices of the blocks instead of all weights."""

    rank: int = 0
    """Rank of the change; 0 trains all weights."""
    alpha: float = 16.0
    """The change is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.rank >= 0, f"lora.rank must be 0 (off) or more, got {self.rank}")
        _require(0 < self.alpha <= 1e30, f"lora.alpha must be above 0 and at most 1e30, got {self.alpha}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Everything that decides a run."""

    name: str = "run"
    """Name of the run: the folder below out_dir."""
    out_dir: Path = Path("runs")
    """Where run folders are made."""
    init_from: Path | None = None
    """A run, checkpoint or model folder whose weights to begin with, in place of random ones."""
    seed: int = 1337
    """Seed of initialization, data order and dropout."""
    max_steps: int = 2000
    """Optimizer steps."""
    max_hours: float = 0.0
    """Stop, save and write the report after so many hours of a session; 0 is no limit. --resume goes on."""
    tokens_per_step: int = 12 * 64
    """Tokens in one optimizer step, over all devices; accumulation is derived from it."""
    replace_tokens: float = 0.0
    """Share of the input tokens that are replaced by random ones, against learning a small text by heart."""
    log_every: int = 10
    """Steps between lines of metrics."""
    profile: bool = False
    """Watch a few steps with PyTorch's profiler, and write RUN/profile."""
    model: GPTConfig | ModernConfig = field(default_factory=GPTConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        """Check what no single section can see."""
        _require(
            self.name not in ("", ".", "..") and self.name.isprintable() and not {"/", "\\"} & set(self.name),
            f"name must be a plain folder name, got {self.name!r}",
        )
        _require(1 <= self.max_steps <= _MOST, f"max_steps must be 1 to 2**53, got {self.max_steps}")
        _require(self.tokens_per_step <= _MOST, f"tokens_per_step must be at most 2**53, got {self.tokens_per_step}")
        _require(0 <= self.max_hours <= 24 * 365, f"max_hours must be 0 (no limit) to 8760, got {self.max_hours}")
        _require(self.log_every >= 1, f"log_every must be at least 1, got {self.log_every}")
        _require(0 <= self.replace_tokens < 1, f"replace_tokens must be in [0, 1), got {self.replace_tokens}")
        _require(
            not (self.lora.rank and self.optim.average),
            f"optim.average {self.optim.average} does not go with lora.rank {self.lora.rank}; leave one of them 0",
        )
        _require(0 <= self.seed < 2**63, f"seed must be in [0, 2**63), got {self.seed}")
        _require(
            not self.lora.rank or self.init_from is not None,
            f"lora.rank {self.lora.rank} changes a trained model a little; name one with --init-from",
        )
        _require(
            self.lora.rank <= self.model.n_embd,
            f"lora.rank must be at most model.n_embd, the rank of a whole matrix, {self.model.n_embd};"
            f" got {self.lora.rank}",
        )
        batch = self.smallest_micro_batch
        tokens = self.model.block_size * batch
        _require(
            self.tokens_per_step >= tokens and self.tokens_per_step % tokens == 0,
            f"tokens_per_step must be a multiple of micro_batch_size * block_size = "
            f"{batch} * {self.model.block_size} = {tokens}, got {self.tokens_per_step}; the next one is"
            f" --tokens-per-step {max(1, -(-self.tokens_per_step // tokens)) * tokens}",
        )

    @property
    def run_dir(self) -> Path:
        """The folder of this run."""
        return self.out_dir / self.name

    @property
    def learned_from(self) -> dict[str, str]:
        """For the card: the data, and the model that it went on from; of a path no more than the last two names."""
        data = self.data.source if self.data.path is None else f"{self.data.source}: {_end(self.data.path)}"
        return {"data": data} | ({} if self.init_from is None else {"init_from": _end(self.init_from)})

    @property
    def smallest_micro_batch(self) -> int:
        """Sequences per forward pass; 1 where auto may choose as few."""
        size = self.runtime.micro_batch_size
        return 1 if size == "auto" else size

    @property
    def grad_accum_steps(self) -> int:
        """Micro-steps per optimizer step on one process, of `smallest_micro_batch` sequences."""
        return self.micro_steps(1)

    def micro_steps(self, processes: int) -> int:
        """Micro-steps per optimizer step on each of several processes, of `smallest_micro_batch` sequences.

        Raises:
            UsageError: They cannot share tokens_per_step evenly.
        """
        return self.samples_per_process(processes) // self.smallest_micro_batch

    def samples_per_process(self, processes: int) -> int:
        """Sequences per optimizer step on each of several processes.

        Raises:
            UsageError: They cannot share tokens_per_step evenly.
        """
        batch, block_size = self.smallest_micro_batch, self.model.block_size
        tokens = batch * block_size * processes
        samples, rest = divmod(self.tokens_per_step, block_size * processes)
        smaller = next(size for size in range(batch, 0, -1) if samples % size == 0)
        more = -(-self.tokens_per_step // tokens) * tokens
        _require(
            self.tokens_per_step % tokens == 0,
            f"tokens_per_step must be a multiple of micro_batch_size * block_size * processes = {batch} * {block_size}"
            f" * {processes} = {tokens}, got {self.tokens_per_step}; take another number of processes or"
            f" {f'--tokens-per-step {more}' if rest else f'--runtime.micro-batch-size {smaller}'}",
        )
        return samples
