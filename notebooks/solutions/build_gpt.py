# %% [markdown]
# # Solutions: building a GPT
#
# One way of several, for each exercise of [build_gpt](../build_gpt.ipynb). Here a check that fails raises.

# %%
import math

import torch

from groundup.learn.exercises import exercises

check = exercises("build_gpt", strict=True)

# %% [markdown]
# **Exercise 1.** Ones where looking is allowed, each row divided by how many there are.


# %%
def average_matrix(T):
    lower = torch.ones(T, T).tril()
    return lower / lower.sum(dim=1, keepdim=True)


check("average_matrix", average_matrix)

# %% [markdown]
# **Exercise 2.** Mask *before* the softmax: set to zero after it, the rows would no longer sum to 1. `triu(1)` leaves
# the diagonal alone: a position always sees itself, so that no row is empty.


# %%
def attention_weights(q, k):
    T, D = q.shape
    scores = q @ k.T / math.sqrt(D)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(dim=-1)


check("attention_weights", attention_weights)

# %% [markdown]
# **Exercise 3.** `view` never moves a number, it only reads the same row of memory with other line breaks. Within a row
# of `x` the columns of head 0 come first, then those of head 1, so (T, H, D) is how the memory lies; only then may the
# dimensions trade places.


# %%
def split_heads(x, n_head):
    T, C = x.shape
    return x.view(T, n_head, C // n_head).transpose(0, 1)


check("split_heads", split_heads)

# %% [markdown]
# **Exercise 4.** The same as `torch.nn.functional.layer_norm`.


# %%
def layer_norm(x, weight, bias):
    centered = x - x.mean(dim=-1, keepdim=True)
    variance = (centered**2).mean(dim=-1, keepdim=True)
    return centered / torch.sqrt(variance + 1e-5) * weight + bias


check("layer_norm", layer_norm)

# %% [markdown]
# **Exercise 5.** In a block: `c_attn` $3C^2 + 3C$, `c_proj` $C^2 + C$, `c_fc` $4C^2 + 4C$, `mlp.c_proj` $4C^2 + C$,
# two norms $4C$. Together $12C^2 + 13C$. The number of heads does not occur: they share the columns there are.


# %%
def count_parameters(n_layer, n_embd, block_size, vocab_size):
    block = 12 * n_embd**2 + 13 * n_embd
    return vocab_size * n_embd + block_size * n_embd + n_layer * block + 2 * n_embd


print(f"{count_parameters(12, 768, 1024, 50257):,}")
check("count_parameters", count_parameters)
