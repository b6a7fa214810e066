# %% [markdown]
# # Solutions: counting pairs of letters

# %%
import torch

from groundup.learn.exercises import exercises

check = exercises("bigram", strict=True)

# %%
def count_pairs(ids, vocab_size):
    counts = torch.zeros(vocab_size, vocab_size)
    for current, following in zip(ids, ids[1:]):
        counts[current, following] += 1
    return counts


check("count_pairs", count_pairs)
