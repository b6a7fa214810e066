# %% [markdown]
# # Solutions: training
#
# One way to solve each exercise of [`training`](../training.ipynb). Yours may look different: what counts is that the
# checks pass.

# %%
import math

import torch
from torch import Tensor

from groundup.learn.exercises import exercises
from groundup.model.loss import LossModule

check = exercises("training", strict=True)

# %% [markdown]
# **Exercise 1.** A model of $L$ blocks adds to its stream $2L$ times. Variances of independent numbers add up, so each
# addition may have $1/(2L)$ of the variance: a standard deviation of $1/\sqrt{2L}$.

# %%


def residual_std(n_layer: int) -> float:
    """Standard deviation of the projections onto the residual stream at the start."""
    return 0.02 / math.sqrt(2 * n_layer)


check("residual_std", residual_std)

# %% [markdown]
# **Exercise 2.** The decay acts on the old weight and never meets the averages.

# %%


def adamw_step(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The weight and both averages after step t."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    step = (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
    return w * (1 - lr * weight_decay) - lr * step, m, v


check("adamw_step", adamw_step)

# %% [markdown]
# **Exercise 3.** Mind that warmup belongs to the steps before `warmup_steps`, and the cosine has only the steps after it.

# %%


def lr_scale(step: int, warmup_steps: int, max_steps: int, final: float) -> float:
    """Share of the peak learning rate at a step; steps count from 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if step >= max_steps:
        return final
    progress = (step - warmup_steps) / (max_steps - warmup_steps)
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


check("lr_scale", lr_scale)

# %% [markdown]
# **Exercise 4.** The number of tokens must be known before the first backward pass.

# %%


def accumulate(loss_module: LossModule, pieces: list[tuple[Tensor, Tensor]]) -> None:
    """Fill .grad with the gradient of the mean loss over all pieces."""
    n_tokens = sum(int((targets != -100).sum()) for _, targets in pieces)
    for idx, targets in pieces:
        (loss_module(idx, targets) / n_tokens).backward()


check("accumulate", accumulate)

# %% [markdown]
# **Exercise 5.** Only the largest entry decides. This asks float16 itself instead of trusting a formula: 65519 still fits
# (it is rounded to 65504), 65520 does not.

# %%


def largest_scale(grads: Tensor) -> float:
    """The largest 2**k for which no entry of grads * 2**k overflows in float16; grads are float32, not all zero."""
    largest = grads.abs().max().double()
    k = math.floor(torch.log2(65504 / largest))
    while (largest * 2.0 ** (k + 1)).half().isfinite():
        k += 1
    return 2.0**k


check("largest_scale", largest_scale)
