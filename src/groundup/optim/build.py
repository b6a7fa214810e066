"""Optimizers for a model."""

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from groundup.config.train import OptimConfig
from groundup.model.parameters import parameter_rules
from groundup.optim.groups import assert_covers, decay_groups, split_matrices
from groundup.optim.muon import Muon


def build_optimizers(model: nn.Module, config: OptimConfig, device: torch.device) -> list[Optimizer]:
    """AdamW for everything, or Muon for the matrices inside the blocks and AdamW for the rest.

    Every group keeps its peak rate under `initial_lr`; `set_lr` scales from it. The fused kernel is used where
    PyTorch has one (CPU and CUDA): one pass over the state instead of a dozen.

    Raises:
        ValueError: The model's table does not know a parameter.
    """
    rules = parameter_rules(model)
    trained = [(rules[name], p) for name, p in model.named_parameters() if p.requires_grad]
    matrices, others = split_matrices(trained) if config.name == "muon" else ([], trained)
    optimizers: list[Optimizer] = []
    if others:  # LoRA trains nothing but matrices
        betas, fused = (config.beta1, config.beta2), device.type in ("cpu", "cuda")
        optimizers.append(AdamW(decay_groups(others, config.weight_decay), lr=config.lr, betas=betas, fused=fused))
    if matrices:
        maps = {p: rule.maps for rule, p in matrices}
        optimizers.append(Muon(maps, lr=config.lr * config.muon_lr_ratio, weight_decay=config.weight_decay, maps=maps))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    assert_covers(model, groups)
    for group in groups:
        group["initial_lr"] = group["lr"]
    return optimizers


def set_lr(optimizers: list[Optimizer], scale: float) -> None:
    """Set every group's rate to `scale` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = scale * group["initial_lr"]
