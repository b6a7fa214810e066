"""A run on paper: what it learns, what it costs, whether it fits."""

import dataclasses
from dataclasses import dataclass

from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.train import OptimConfig, TrainConfig
from groundup.planner.flops import flops_per_token
from groundup.planner.memory import Arithmetic, Memory, memory_of_run
from groundup.planner.params import count_parameters, has_position_table, lora_parameters, shape_in_words


@dataclass(frozen=True, slots=True)
class Plan:
    """The arithmetic of one run."""

    config: TrainConfig
    shape: GPTConfig | ModernConfig
    """The model's, its vocabulary known."""
    parameters: int
    tokens: int
    flops_per_step: float
    memory: Memory
    assumed: bool = False
    """Whether the vocabulary is a guess."""

    def rows(self, *, memory: bool = True) -> list[tuple[str, str]]:
        """What a person wants to know, as (name, value).

        Args:
            memory: With what a step needs in float32, as long as no hardware is known.
        """
        c, m = self.config, self.config.model
        auto = c.runtime.micro_batch_size == "auto"
        change = lora_parameters(self.shape, c.lora.rank)
        learning = f"; {change:,} learn, of a change of rank {c.lora.rank} (LoRA)" if change else ""
        guess = ", assumed until the data is read" if self.assumed else ""
        return [
            (
                "model",
                f"{shape_in_words(m)}, {'learned' if has_position_table(m) else 'rotary'} positions",
            ),
            ("parameters", f"{self.parameters:,}, with {self.shape.vocab_size:,} ids{guess}{learning}"),
            ("data", f"{c.data.source}, tokenizer {c.data.tokenizer}"),
            ("steps", f"{c.max_steps:,}"),
            (
                "tokens per step",
                f"{c.tokens_per_step:,} = {c.grad_accum_steps} x {c.smallest_micro_batch} x {m.block_size}"
                + (", as many at a time as fit" if auto else ""),
            ),
            ("tokens", f"{self.tokens:,} ({self.tokens / self.parameters:.1f} per parameter)"),
            ("FLOPs per step", f"{self.flops_per_step:.3g}"),
            ("FLOPs in all", f"{self.flops_per_step * c.max_steps:.3g}"),
            *([(f"memory, fp32{', least' if auto else ''}", in_parts(self.memory))] if memory else []),
            ("optimizer", f"{c.optim.name}, {c.optim.warmup_steps} warmup steps"),
            ("learning rate", _rates(c.optim)),
            ("run folder", str(c.run_dir)),
        ]


def _rates(optim: OptimConfig) -> str:
    """The peak rate of each kind of weight, and the rate at the end."""
    muon = f"{optim.lr * optim.muon_lr_ratio:g} for matrices in blocks (muon), " if optim.name == "muon" else ""
    rest = " for the rest (adamw)" if muon else ""
    return f"{muon}{optim.lr:g}{rest}, decays to {optim.min_lr_ratio:.3g} of it"


def plan(config: TrainConfig, *, vocab_size: int, assumed: bool = False) -> Plan:
    """Compute a plan.

    Args:
        config: The run, its model's vocabulary known.
        vocab_size: Ids of the tokenizer, where the model's config leaves it open.
        assumed: Whether that is a guess.
    """
    shape = dataclasses.replace(config.model, vocab_size=config.model.vocab_size or vocab_size)
    return Plan(
        config=config,
        shape=shape,
        parameters=count_parameters(shape),
        tokens=config.max_steps * config.tokens_per_step,
        flops_per_step=flops_per_token(shape, shape.block_size) * config.tokens_per_step,
        memory=memory_of_run(config, shape, Arithmetic(cpu=config.runtime.device == "cpu"))(
            config.smallest_micro_batch
        ),
        assumed=assumed and not config.model.vocab_size,
    )


def in_parts(memory: Memory, of: str = "") -> str:
    """Memory in words: the sum, for how much that is, and those of its parts that are there at its peak."""
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimizer": memory.optimizer,
        "activations": memory.activations,
        "logits": memory.logits,
        "backward pass": memory.backward,
        "allocator and libraries": memory.holes,
    }
    shown = ", ".join(f"{name} {size(n)}" for name, n in parts.items() if n >= 50_000)  # less would be 0.0 MB
    return f"{size(memory.total)}{of}: {shown}"


def size(n: int) -> str:
    """Bytes as a person says them: 85.4 MB, 1.28 GB."""
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
