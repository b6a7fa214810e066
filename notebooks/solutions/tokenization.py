# %% [markdown]
# # Solutions: tokenization
#
# One way of several, for each exercise of [tokenization](../tokenization.ipynb). Here a check that fails raises.

# %%
import math
from collections import Counter

from groundup.learn.exercises import exercises

check = exercises("tokenization", strict=True)

# %% [markdown]
# **Exercise 1.** The same as `list(chr(code).encode())`.


# %%
def utf8_bytes(code):
    if code < 0x80:
        return [code]
    if code < 0x800:
        return [0xC0 | code >> 6, 0x80 | code & 0x3F]
    if code < 0x10000:
        return [0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F]
    return [0xF0 | code >> 18, 0x80 | code >> 12 & 0x3F, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F]


check("utf8_bytes", utf8_bytes)

# %% [markdown]
# **Exercise 2.** `max(counts, key=counts.get)` would take whichever of several equally frequent pairs came first: a
# rule too, but another.


# %%
def most_frequent_pair(ids):
    counts = Counter(zip(ids, ids[1:]))
    return min(counts, key=lambda pair: (-counts[pair], pair))


check("most_frequent_pair", most_frequent_pair)

# %% [markdown]
# **Exercise 3.** In `[7, 7, 7]` the first two merge and the third is left over: from left to right, nothing twice.


# %%
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


check("merge", merge)

# %% [markdown]
# With these two, training a tokenizer is four lines:

# %%
ids = list(b"tomorrow, and tomorrow, and tomorrow, creeps in this petty pace")
for new in range(256, 264):
    pair = most_frequent_pair(ids)
    ids = merge(ids, pair, new)
    print(new, pair, len(ids))

# %% [markdown]
# The merges differ a little from the lesson's: without the regular expression, pairs reach across spaces.
#
# **Exercise 4.** Lowest rank first, until no pair has one.


# %%
def encode_word(word, merges):
    rank = {pair: i for i, pair in enumerate(merges)}
    ids = list(word.encode())
    while len(ids) > 1:
        pair = min(zip(ids, ids[1:]), key=lambda pair: rank.get(pair, math.inf))
        if pair not in rank:
            break
        ids = merge(ids, pair, 256 + rank[pair])
    return ids


check("encode_word", encode_word)

# %% [markdown]
# **Exercise 5.** A loss of ln 256 on single bytes is 8 bits per byte: nothing was learned.


# %%
def bits_per_byte(loss, n_tokens, n_bytes):
    return loss * n_tokens / n_bytes / math.log(2)


check("bits_per_byte", bits_per_byte)
