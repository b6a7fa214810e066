"""Optimizers for a model, and how their rates change from step to step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Optimizer

from groundup.config.train import OptimConfig
from groundup.model.parameters import parameter_rules
from groundup.optim.eager import AdamW
from groundup.optim.groups import assert_covers, decay_groups, split_matrices
from groundup.optim.lazy import LazyRMSProp
from groundup.optim.muon import Muon
from groundup.optim.schedule import cosine_scale, linear_scale, momentum_at
from groundup.runtime.stored import PlainKernels

MOMENTUM_START = 0.85
"""Muon's momentum at step 0, if it has a warmup."""


def build_optimizers(
    model: nn.Module, config: OptimConfig, device: torch.device, kernels: PlainKernels | None = None
) -> list[Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the blocks and AdamW for the rest; tables learn lazily.

    Every group keeps its peak rate under `initial_lr`; `set_lr` scales from it. The fused kernel is used where
    PyTorch has one (CPU and CUDA): one pass over the state instead of a dozen.

    Args:
        model: Whose parameters learn.
        config: How.
        device: Where they are.
        kernels: Take steps on a CPU; None is PyTorch.

    Raises:
        ValueError: A parameter is not in the model's table.
    """
    rules = parameter_rules(model)
    trained = [(rules[name], p) for name, p in model.named_parameters() if p.requires_grad]
    tables = [p for rule, p in trained if rule.lazy]
    trained = [(rule, p) for rule, p in trained if not rule.lazy]
    matrices, others = split_matrices(trained) if config.name == "muon" else ([], trained)
    optimizers: list[Optimizer] = []
    if tables:
        optimizers.append(LazyRMSProp(tables, lr=config.lr, beta2=config.beta2))
    if others:  # LoRA trains nothing but matrices
        betas, fused = (config.beta1, config.beta2), device.type in ("cpu", "cuda")
        decayed = decay_groups(others, config.weight_decay)
        optimizers.append(AdamW(decayed, lr=config.lr, betas=betas, fused=fused, kernels=kernels))
    if matrices:
        maps = {p: rule.maps for rule, p in matrices}
        optimizers.append(
            Muon(
                maps,
                lr=config.lr * config.muon_lr_ratio,
                weight_decay=config.weight_decay * config.muon_decay_ratio,
                momentum=config.muon_momentum,
                cautious=config.cautious_decay,
                maps=maps,
                kernels=kernels,
            )
        )
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    assert_covers(model, groups)
    for group in groups:
        group["initial_lr"] = group["lr"]
    return optimizers


def rate_flags(optimizers: Sequence[Optimizer]) -> str:
    """The flags that lower the peak learning rates in use, for advice."""
    ratio = " or --optim.muon-lr-ratio" if any(isinstance(optimizer, Muon) for optimizer in optimizers) else ""
    return f"--optim.lr{ratio}"


def set_lr(optimizers: list[Optimizer], scale: float) -> None:
    """Set every group's rate to `scale` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = scale * group["initial_lr"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The rates of a run, each a function of the step.

    Args:
        config: What they are made of.
        max_steps: Steps of the run.
    """

    config: OptimConfig
    max_steps: int

    def lr_scale(self, step: int) -> float:
        """Share of the peak learning rate."""
        return self._scale(step, self.config.cooldown)

    def set_muon(self, optimizers: list[Optimizer], step: int) -> None:
        """Set what has a schedule of its own in Muon: its learning rate with a cooldown, its momentum with a warmup."""
        c = self.config
        for group in (
            group for optimizer in optimizers if isinstance(optimizer, Muon) for group in optimizer.param_groups
        ):
            if c.muon_cooldown:
                group["lr"] = self._scale(step, c.muon_cooldown) * group["initial_lr"]
            if c.muon_momentum_warmup:
                group["momentum"] = momentum_at(
                    step, start=MOMENTUM_START, end=c.muon_momentum, warmup_steps=c.muon_momentum_warmup
                )

    def _scale(self, step: int, cooldown: float) -> float:
        ends = {"warmup_steps": self.config.warmup_steps, "max_steps": self.max_steps}
        if self.config.schedule == "cosine":
            return cosine_scale(step, final=self.config.min_lr_ratio, **ends)
        return linear_scale(step, final=self.config.min_lr_ratio, cooldown=cooldown, **ends)
