# %% [markdown]
# # Solutions: inference
#
# One way to solve each exercise of [`inference`](../inference.ipynb). Yours may look different: what counts is that the
# checks pass.

# %%
import torch
from torch import Tensor

from groundup.learn.exercises import exercises
from groundup.model.gpt import GPT

check = exercises("inference", strict=True)

# %% [markdown]
# **Exercise 1.** The question for each token is how much probability lies *before* it. The likeliest has nothing before it
# and is always kept.

# %%


def nucleus(probabilities: Tensor, p: float) -> Tensor:
    """True for every token that top-p keeps."""
    values, order = probabilities.sort(descending=True)
    before = values.cumsum(0) - values
    mask = torch.zeros_like(probabilities, dtype=torch.bool)
    mask[order] = before < p
    return mask


check("nucleus", nucleus)

# %% [markdown]
# **Exercise 2.** The dart is past every interval whose right end is not to its right.

# %%


def hit(probabilities: Tensor, u: float) -> int:
    """The id of the token that a uniform number u in [0, 1) falls on."""
    return int((probabilities.cumsum(0) <= u).sum())


check("hit", hit)

# %% [markdown]
# **Exercise 3.** The logits at the last position speak of the token that comes next.

# %%


def greedy_decode(model: GPT, prompt: list[int], n: int) -> list[int]:
    """The n likeliest ids, one after the other."""
    ids = list(prompt)
    for _ in range(n):
        logits = model(torch.tensor([ids]))
        ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


check("greedy_decode", greedy_decode)

# %% [markdown]
# **Exercise 4.** A key and a value, of `n_embd` numbers each, in every layer for every token.

# %%


def cache_bytes(n_layer: int, n_embd: int, n_tokens: int, batch_size: int, bytes_per_number: int) -> int:
    """Size of the keys and values of all layers."""
    return 2 * n_layer * batch_size * n_tokens * n_embd * bytes_per_number


check("cache_bytes", cache_bytes)

# %% [markdown]
# **Exercise 5.** The prompt and every new token go through the model once; the last one need not go at all.

# %%


def cached_decode(model: GPT, prompt: list[int], n: int) -> list[int]:
    """The same n ids as greedy_decode, reading every token once."""
    cache = model.new_cache(1, len(prompt) + n)
    idx = torch.tensor([prompt])
    ids = []
    for _ in range(n):
        ids.append(int(model(idx, cache=cache)[0, -1].argmax()))
        idx = torch.tensor([ids[-1:]])
    return ids


check("cached_decode", cached_decode)
