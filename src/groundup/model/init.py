"""Initial weights, in one place and as one table.

| parameter | drawn from |
|---|---|
| embeddings and linear weights | N(0, 0.02) |
| projections onto the residual stream (`c_proj`) | N(0, 0.02 / sqrt(2 n_layer)) |
| biases | 0 |
| norm gains | 1 |

Each block adds to the residual stream twice, so the scaled projections keep it equally large at any depth (Radford
et al. 2019, section 2.3). Numbers are drawn in float32 on the CPU from a seed, so that every device and
precision starts from the same weights.
"""

import math
from typing import TypeVar

import torch

from groundup.model.gpt import GPT
from groundup.model.modern import Modern

STD = 0.02
M = TypeVar("M", bound=GPT | Modern)


@torch.no_grad()
def init_weights(model: M, *, seed: int) -> M:
    """Draw all parameters of a model in place; returns the model."""
    generator = torch.Generator().manual_seed(seed)
    scaled = STD / math.sqrt(2 * model.config.n_layer)
    for name, p in model.named_parameters():
        if p.dim() == 2:
            std = scaled if name.endswith("c_proj.weight") else STD
            p.copy_(torch.empty(p.shape).normal_(0.0, std, generator=generator))
        else:
            p.fill_(0.0 if name.endswith("bias") else 1.0)
    return model
