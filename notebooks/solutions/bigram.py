# %% [markdown]
# # Solutions: counting pairs of letters
#
# One way of several, for each exercise of [bigram](../bigram.ipynb). Here a check that fails raises.

# %%
import torch

from groundup.learn.exercises import exercises

check = exercises("bigram", strict=True)

# %% [markdown]
# **Exercise 1.** The loop says what is meant. The notebook's `bincount` says the same a hundred times faster.


# %%
def count_pairs(ids, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size)
    for current, following in zip(ids, ids[1:]):
        counts[current, following] += 1
    return counts


check("count_pairs", count_pairs)

# %% [markdown]
# **Exercise 2.** `keepdim=True` is the point: without it the shape (V,) is lined up with the *columns*, and PyTorch
# divides happily by the wrong numbers. The rows then do not sum to 1. Of all silent mistakes it is the commonest.


# %%
def probabilities(counts, smoothing):
    smoothed = counts + smoothing
    return smoothed / smoothed.sum(dim=1, keepdim=True)


check("probabilities", probabilities)

# %% [markdown]
# **Exercise 3.** The number of pieces that end at or before `r` is the index of the piece that `r` is on.


# %%
def draw(p, r):
    return int((p.cumsum(0) <= r).sum())


check("draw", draw)

# %% [markdown]
# **Exercise 4.** Indexing with two tensors picks one element for each pair: `p[[a, b], [c, d]]` is
# `[p[a, c], p[b, d]]`.


# %%
def loss(p, ids):
    return -p[ids[:-1], ids[1:]].log().mean()


check("loss", loss)

# %% [markdown]
# **Exercise 5.** With $p = \text{softmax}(z)$ and $L = -\ln p_t = -z_t + \ln \sum_k e^{z_k}$, the derivative with
# respect to $z_j$ is $-[j = t] + e^{z_j} / \sum_k e^{z_k}$.


# %%
def gradient(logits, target):
    g = logits.softmax(dim=-1)
    g[target] -= 1
    return g


check("gradient", gradient)
