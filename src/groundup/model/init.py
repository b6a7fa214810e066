"""Initial weights, in one place. The model's table `PARAMETERS` says which parameter is which.

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
from groundup.model.parameters import parameter_rules

STD = 0.02
M = TypeVar("M", bound=GPT | Modern)


@torch.no_grad()
def init_weights(model: M, *, seed: int) -> M:
    """Draw all parameters of a model in place; returns the model.

    Raises:
        ValueError: The model's table does not know a parameter.
    """
    generator = torch.Generator().manual_seed(seed)
    scaled = STD / math.sqrt(2 * model.config.n_layer)
    rules = parameter_rules(model)
    for name, p in model.named_parameters():
        match rules[name].init:
            case "normal":
                p.copy_(torch.empty(p.shape).normal_(0.0, STD, generator=generator))
            case "stream":
                p.copy_(torch.empty(p.shape).normal_(0.0, scaled, generator=generator))
            case "zero":
                p.zero_()
            case "half":
                p.fill_(0.5)
            case "one":
                p.fill_(1.0)
            case "layer":
                pass
    return model
