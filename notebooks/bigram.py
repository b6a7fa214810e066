# %% [markdown]
# # Counting pairs of letters

# %%
from groundup.learn.exercises import exercises

check = exercises("bigram")

# %%
def count_pairs(ids, vocab_size):
    ...


check("count_pairs", count_pairs)
