# %% [markdown]
# # 1. Counting pairs of letters
#
# A language model answers one question: *given what has been written so far, how likely is each thing that could come
# next?* Everything else, from chat to translation, is asking that question again and again.
#
# The smallest model worth the name looks at one letter and guesses the next. It needs no neural network: counting is
# enough. And then we build it a second time, as a neural network, by gradient descent, and see that it arrives at the
# same numbers. After that there is no mystery left in the word *training*, only larger models.
#
# You will have built: a table of probabilities, a sampler, the loss that every language model is trained on, and its
# gradient. All of it is checked against the library `groundup`, whose code the later notebooks go on to use.
#
# *Runs in about ten seconds on a laptop, without network. You need a little Python and the first page of probability.*

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import torch

from groundup.inspection.plots import COLORS, curve_axes, heat_map, visible
from groundup.learn.exercises import exercises

torch.manual_seed(1)
check = exercises("bigram")

# %% [markdown]
# ## The text
#
# The plays of Shakespeare, as speeches: a name, a colon, the lines, a blank line. The last tenth of every play is held
# out: no model may learn from it, and every model is measured on it.

# %%
from groundup.corpora.shakespeare import Shakespeare

plays = Shakespeare()
documents = [document for part in plays.parts() for document in plays.read(part, {})]
train_text = "".join(document.text for document in documents if document.split == "train")
val_text = "".join(document.text for document in documents if document.split == "val")

print(f"{len(train_text):,} characters to learn from, {len(val_text):,} held out\n")
start = train_text.index("To be, or not to be")
print(train_text[start - len("HAMLET:\n") : start + 172])

# %% [markdown]
# A model computes with numbers, so every character gets one: its place in the alphabet of the text.

# %%
from groundup.tokenizer.char import CharTokenizer

tokenizer = CharTokenizer.from_text([train_text, val_text])
V = tokenizer.vocab_size
train_ids = torch.tensor(tokenizer.encode(train_text))
val_ids = torch.tensor(tokenizer.encode(val_text))

print(V, "symbols:", visible("".join(tokenizer.symbols)))
print(tokenizer.encode("To be"), "->", tokenizer.decode(tokenizer.encode("To be")))

# %% [markdown]
# ## Counting
#
# How often does each symbol follow each other one? Row: the current symbol. Column: the one after it.
#
# ### Exercise 1: count pairs
# Write it in the plainest way you can.


# %%
def count_pairs(ids, vocab_size):
    """A tensor (vocab_size, vocab_size): how often the id of the column comes right after the id of the row.

    ids is a list of integers.
    """
    ...


check("count_pairs", count_pairs)

# %% [markdown]
# A Python loop over four million characters takes seconds. The same without a loop: give each pair a number of its
# own, `current * V + following`, and count how often each number occurs.

# %%
pair_numbers = train_ids[:-1] * V + train_ids[1:]
counts = torch.bincount(pair_numbers, minlength=V * V).view(V, V).double()

q, u = tokenizer.encode("qu")
print(f"{counts.sum():,.0f} pairs; q is followed by u {counts[q, u]:.0f} times of {counts[q].sum():.0f}")
print(f"{(counts == 0).sum()} of the {V * V} pairs never occur")

# %% [markdown]
# Divide each row by its sum and it becomes a distribution: $P(\text{next} \mid \text{current})$. This is the whole
# model. Here are the rows and columns of the small letters, with the space and the end of a line.

# %% alt="The table as a map: most rows have a few dark cells, as e after v and a space after d or y; after q only u."
symbols = "\n abcdefghijklmnopqrstuvwxyz"
chosen = torch.tensor(tokenizer.encode(symbols))
P = counts / counts.sum(dim=1, keepdim=True)

figure, axes = curve_axes("", "", size=(7.5, 7))
axes.grid(visible=False)
labels = [visible(symbol) for symbol in symbols]
image = heat_map(axes, P[chosen][:, chosen], labels, labels, vmin=0, vmax=0.6)
axes.set_ylabel("current")
axes.set_title("next", size=10)
figure.colorbar(image, ax=axes, label="P(next | current)", shrink=0.7)
plt.show()

# %% [markdown]
# Take a minute with it. The column of `e` and the column of the space are dark: much leads there. After `q` comes `u`.
# After a vowel comes a consonant, mostly. After `j` a vowel. Nobody told the table what a vowel is.
#
# ### Exercise 2: probabilities
# One thing is missing. A pair that never occurred would have probability 0: impossible, for ever. A text that holds
# it once would be impossible too. The oldest cure: pretend to have seen every pair a little, say once more than you
# have. This is called *smoothing*.


# %%
def probabilities(counts, smoothing):
    """Each row of counts, with smoothing added to every count, scaled so that it sums to 1."""
    ...


check("probabilities", probabilities)

# %% [markdown]
# ## Writing
#
# To write, draw the next symbol from its row, then look up the row of the symbol just drawn, and so on.
#
# A computer draws from a distribution with a number $r$ that is uniform between 0 and 1. Lay the probabilities side by
# side on a line of length 1; $r$ falls onto one of the pieces, and onto a long piece more often than onto a short one.
#
# ### Exercise 3: draw


# %%
def draw(p, r):
    """The index of the piece that r falls onto: the smallest i with p[0] + ... + p[i] > r.

    p is a tensor of probabilities that sum to 1; r is a number in [0, 1).
    """
    ...


check("draw", draw)

# %% [markdown]
# `torch.multinomial` does the same. The library's `fit_bigram` makes the table of this notebook in one line (with
# smoothing 1), and `TextGenerator` draws from any model of the library, this one and a GPT alike.

# %%
from groundup.generation.text import TextGenerator
from groundup.model.bigram import fit_bigram

counted = fit_bigram(train_ids.numpy(), V)
assert torch.allclose(
    counted.table.weight.softmax(dim=-1).double(), (counts + 1) / (counts + 1).sum(dim=1, keepdim=True)
)

print("--- every symbol equally likely")
print(tokenizer.decode(torch.randint(V, (160,)).tolist()))
print("\n--- pairs of letters")
print(TextGenerator(counted, tokenizer).generate("\n", max_new_tokens=400, seed=3)[0])

# %% [markdown]
# This is bad, and it is astonishing how much is right: the length of the words, vowels among consonants, a name in
# capitals before a colon now and then. All of it from one letter of memory.
#
# ## How good is it? The loss
#
# A model that predicts well gives high probability to the text that really comes. The probability of a whole text is
# the product of the probabilities of its symbols, and a product of thousands of small numbers is zero on any computer:

# %%
p = (counts + 1) / (counts + 1).sum(dim=1, keepdim=True)
speech = torch.tensor(tokenizer.encode(val_text[:1000]))
steps = p[speech[:-1], speech[1:]]
print("probability of 1,000 characters:", steps.prod().item())
print("sum of the logarithms:          ", steps.log().sum().item())

# %% [markdown]
# So take the logarithm: the product becomes a sum. Turn the sign, so that smaller is better. Divide by the number of
# symbols, so that texts of different length compare. That is **the loss**, the only number that training ever looks at:
#
# $$L = -\frac{1}{N}\sum_{i} \ln P(x_{i+1} \mid x_i)$$
#
# Its unit is the *nat* per symbol. A model that thinks every one of $V$ symbols equally likely has $L = \ln V$; one
# that is always certain and right has 0. $e^L$, the *perplexity*, says among how many equally likely symbols the model
# hesitates, on average.
#
# ### Exercise 4: loss


# %%
def loss(p, ids):
    """The mean of -ln P(next | current) over all pairs of neighbors in ids, a tensor of integers.

    p[i, j] is the probability that j follows i.
    """
    ...


check("loss", loss)

# %% [markdown]
# The library's loss, for all its models, is `lm_loss_sum`; it takes *logits*, numbers of any size whose softmax is the
# probabilities, and returns the sum. Logits of our table: the logarithm of the counts, since
# $\text{softmax}(\ln c)_j = c_j / \sum_k c_k$.

# %%
from groundup.model.loss import lm_loss_sum


@torch.no_grad()
def mean_loss(model, ids):
    pieces = zip(ids[:-1].split(20_000), ids[1:].split(20_000))  # 62 logits for each of millions of ids fill a memory
    return sum(lm_loss_sum(model(now[None]), following[None]).item() for now, following in pieces) / (len(ids) - 1)


frequency = torch.bincount(train_ids, minlength=V).double()
frequency /= frequency.sum()

print(f"{'':36}loss   perplexity")
for name, value in (
    ("every symbol equally likely, ln V", math.log(V)),
    ("symbols by how frequent they are", -frequency[val_ids].log().mean().item()),
    ("pairs, on the text that was counted", mean_loss(counted, train_ids)),
    ("pairs, on the text held out", mean_loss(counted, val_ids)),
):
    print(f"{name:36}{value:.4f} {math.exp(value):8.2f}")

# %% [markdown]
# Knowing one letter takes the model from hesitating among 28 symbols to hesitating among 12. On the text held out it is
# even a little less surprised: a table so small, counted on so much, knows nothing by heart, and the ends of the plays
# happen to be a little easier. Further down it will be otherwise.
#
# A mean hides where the surprise is. Here it is letter by letter, for a line of the held-out text: a bar is
# $-\ln P$ of the letter below it, given the one before.

# %% alt="A bar of surprise for each letter: 1 to 4 nats for most, 4.4 for the u of indulgence and 7.6 for its g."
line = "Let your indulgence set me free."
assert line in val_text  # Prospero's last words
ids = torch.tensor(tokenizer.encode("\n" + line))
surprise = -p[ids[:-1], ids[1:]].log()

figure, axes = curve_axes("", "surprise, -ln P (nats)", size=(8.5, 3))
axes.bar(range(len(line)), surprise, color=COLORS[0], width=0.8)
axes.axhline(math.log(V), color=COLORS[1], linestyle="--", linewidth=1)
axes.text(len(line), math.log(V) + 0.08, "guessing blindly, ln V", color=COLORS[1], ha="right", size=9)
axes.set_xticks(range(len(line)), [visible(c) for c in line], family="monospace")
axes.tick_params(axis="x", length=0)
axes.grid(visible=False, axis="x")
plt.show()

# %% [markdown]
# A space after `e`, an `o` after `y`: cheap. Two letters cost more than blind guessing would: `u` after `d` and `g`
# after `l` hardly ever happen. But nobody who remembers having read `indul` has any doubt about the `g`. What this
# model lacks is memory.
#
# ## The same, by gradient descent
#
# Now forget the counts. Here is a table of logits, all zero; nobody knows what should stand in it. The library calls
# it `Bigram`: one `nn.Embedding`, whose row `i` holds the logits after symbol `i`. With zeros, each symbol is
# equally likely, and the loss must be $\ln V$. It is:

# %%
from groundup.config.model import BigramConfig
from groundup.model.bigram import Bigram

model = Bigram(BigramConfig(vocab_size=V))
print(f"loss of the new model {mean_loss(model, val_ids):.4f}, ln V = {math.log(V):.4f}")

# %% [markdown]
# Gradient descent asks of every number in the table: if it grew a little, would the loss grow or shrink? And moves it
# the other way, again and again. So we need the derivative of $-\ln \text{softmax}(z)_t$, where $t$ is the
# symbol that came. It is worth doing once by hand, because it is the most beautiful formula of the subject:
#
# $$\frac{\partial L}{\partial z_j} = \text{softmax}(z)_j - [j = t]$$
#
# *What you predicted minus what happened.* Where you were right there is nothing to change.
#
# ### Exercise 5: the gradient


# %%
def gradient(logits, target):
    """The gradient of -ln softmax(logits)[target], by the formula above: a tensor like logits, without autograd."""
    ...


check("gradient", gradient)

# %% [markdown]
# PyTorch works out such formulas by itself, for any model; that is what `loss.backward()` does. The loss of our table
# depends on the text through the counts alone, so one step can look at all four million pairs at once. First make sure
# that this is the same loss, then descend: plain gradient descent, and *Adam*, which gives each number a step size of
# its own (notebook 4 looks into it).

# %% alt="Both curves fall from 4.13 to the 2.474 of the counts: Adam within 50 steps, gradient descent in 2,000."
weights = (counts / counts.sum()).float()


def loss_of_all_pairs(model):
    return -(weights * model.table.weight.log_softmax(dim=-1)).sum()


assert math.isclose(loss_of_all_pairs(counted).item(), mean_loss(counted, train_ids), rel_tol=1e-4)


def descend(optimizer_class, lr, n_steps):
    model = Bigram(BigramConfig(vocab_size=V))
    optimizer = optimizer_class(model.parameters(), lr=lr)
    history = []
    for _ in range(n_steps):
        loss_now = loss_of_all_pairs(model)
        optimizer.zero_grad()
        loss_now.backward()
        optimizer.step()
        history.append(loss_now.item())
    return model, history


by_sgd, sgd_history = descend(torch.optim.SGD, lr=50, n_steps=2000)
learned, adam_history = descend(torch.optim.Adam, lr=0.3, n_steps=2000)
counted_loss = -torch.where(counts > 0, weights * P.log(), 0).sum().item()

figure, axes = curve_axes("step", "loss (nats per symbol)")
steps = range(1, len(sgd_history) + 1)
axes.plot(steps, sgd_history, color=COLORS[4], label=f"gradient descent, {sgd_history[-1]:.4f} at the end")
axes.plot(steps, adam_history, color=COLORS[0], label=f"Adam, {adam_history[-1]:.4f} at the end")
axes.axhline(counted_loss, color=COLORS[1], linestyle="--", linewidth=1.2, label=f"the counts, {counted_loss:.4f}")
axes.set(xscale="log", ylim=(2.3, 4.2))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Both curves come down to the line that counting drew, and cannot cross it: the counts *are* the minimum. Of what
# is written in the two tables, this much differs:

# %%
learned_p = learned.table.weight.detach().softmax(dim=-1)
print(f"loss by counting  {counted_loss:.5f}\nloss by learning  {adam_history[-1]:.5f}\n")
print("P(next | current)    counted  learned")
for current, following in ("qu", "th", "he", "e ", ", ", "RO", ":\n"):
    i, j = tokenizer.encode(current + following)
    print(f"  {visible(following)!r:4} after {visible(current)!r:8}{P[i, j]:8.4f} {learned_p[i, j]:8.4f}")
row_size = counts.sum(dim=1)
frequent = row_size > 1000
print(f"\nlargest difference in the rows seen more than 1,000 times: {(P - learned_p)[frequent].abs().max():.4f}")
assert adam_history[-1] - counted_loss < 1e-3

# %% [markdown]
# Two roads, one place. Plain gradient descent takes longest where a symbol is rare: its row matters little for the
# mean, so its gradient is small. Adam divides by the size of the gradient and so does not mind.
#
# Then why would anyone take the long road?
#
# ## Why counting is not enough
#
# Look further back. With $k$ letters of context there is a row for each of the $V^k$ contexts; counting still works,
# and each row is still just a division. Here are all $k$ from 0 to 6.

# %% alt="Both fall to two letters of context; then the counted text goes on to 1.08, held out rises again to 1.77."
x, y = train_ids.numpy(), val_ids.numpy()


def contexts_and_next(ids, k):
    """The number of each run of k symbols, and the symbol after it."""
    number = np.zeros(len(ids) - k, dtype=np.int64)
    for j in range(k):
        number = number * V + ids[j : len(ids) - k + j]
    return number, ids[k:]


def find(values, known, known_counts):
    """How often each value was counted."""
    at = np.searchsorted(known, values).clip(max=len(known) - 1)
    return np.where(known[at] == values, known_counts[at], 0)


def losses_of_counting(k, smoothing=0.02):
    contexts, following = contexts_and_next(x, k)
    known, n_known = np.unique(contexts, return_counts=True)
    pairs, n_pairs = np.unique(contexts * V + following, return_counts=True)
    q = (n_pairs + smoothing) / (find(pairs // V, known, n_known) + smoothing * V)
    train_loss = -(n_pairs * np.log(q)).sum() / n_pairs.sum()
    contexts, following = contexts_and_next(y, k)
    seen = find(contexts, known, n_known)
    q = (find(contexts * V + following, pairs, n_pairs) + smoothing) / (seen + smoothing * V)
    return len(known), train_loss, -np.log(q).mean(), (seen == 0).mean()


orders = range(7)
table = [losses_of_counting(k) for k in orders]
print("context  contexts possible    seen   counted text   held out   never seen before")
for k, (n_seen, train_loss, val_loss, unseen) in zip(orders, table, strict=True):
    print(f"{k:7} {V**k:18,} {n_seen:9,} {train_loss:12.3f} {val_loss:10.3f} {unseen:15.1%}")

figure, axes = curve_axes("letters of context", "loss (nats per symbol)")
axes.plot(orders, [row[1] for row in table], "o-", color=COLORS[4], label="the text that was counted")
axes.plot(orders, [row[2] for row in table], "o-", color=COLORS[0], label="the text held out")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# At first each letter of context helps. Then the two curves part: the table gets better at the text it has counted and
# worse at every other. It no longer learns English, it learns this file by heart: at six letters, one context in
# thirteen of the held-out text was never seen, and about it the table knows nothing at all. It cannot know that
# `my lord` and `my lady` are alike, because to a table two contexts are as different as any other two.
#
# What we want is a function of the context that treats similar contexts similarly, and has far fewer
# parameters than there are contexts. A function like that cannot be counted. It can only be learned, by the very
# descent that you have just seen arrive at the right place. The next notebook builds the one that works best:
# [build_gpt](build_gpt.ipynb). It looks back not six letters but as far as you like.
#
# **What to keep**
#
# - A language model is $P(\text{next} \mid \text{past})$; writing is drawing from it, again and again.
# - The loss is the mean of $-\ln P$ of what really came; $\ln V$ is where everybody starts.
# - The gradient of the loss with respect to the logits is *prediction minus truth*.
# - Training minimizes the same loss that counting minimizes, where counting is possible.
# - The text held out is the only honest judge.
#
# Solutions of the exercises: [solutions/bigram](solutions/bigram.ipynb). The code you used:
# `src/groundup/model/bigram.py`, `src/groundup/model/loss.py`, `src/groundup/corpora/shakespeare.py`.
