# %% [markdown]
# # 2. Building a GPT
#
# The [first notebook](bigram.ipynb) ended with a wish: a function of *all* the letters so far, that treats similar
# pasts similarly. Here it is built, from a mean of numbers to GPT-2, in steps of a few lines.
#
# At each step we compare what we wrote with the module of the library that does the same. At the end our page of
# functions and `groundup.model`, the code that trains at full speed, compute the same logits from the same weights, to
# ten digits. So there is nothing you have to take on trust: you will have written it.
#
# *Under a minute on a laptop, without network. You need the first notebook, and matrix products.*

# %%
import math
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from groundup.inspection.plots import COLORS, curve_axes, heat_map
from groundup.learn.exercises import exercises

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)  # twice the digits: where two ways differ, it will not be for rounding
check = exercises("build_gpt")

# %% [markdown]
# ## Looking back, as simply as possible
#
# Let every position of a text carry a vector, its *embedding*: $T$ positions, $C$ numbers each. So far each position
# knows of its own letter only. The simplest way to let it know of its past is to give it the mean of all the vectors
# up to itself.

# %%
T, C = 6, 4
x = torch.randn(T, C)

by_loop = torch.stack([x[: t + 1].mean(dim=0) for t in range(T)])  # (T, C)

# %% [markdown]
# Three things about this mean carry the whole notebook. *First*: it is a product of matrices. Row $t$ of the left
# matrix says how much position $t$ takes from each position: here $1/(t+1)$ from each of those up to itself, 0 from
# those to come.
#
# ### Exercise 1: average the past


# %%
def average_matrix(T):
    """The matrix (T, T) whose product with any x of shape (T, C) is the mean of each position's past and itself."""
    ...


check("average_matrix", average_matrix)

# %% [markdown]
# *Second*: the same matrix is a softmax. Write scores, $-\infty$ where nobody may look, and let softmax turn each
# row into weights that sum to 1; $e^{-\infty}$ is exactly 0. With equal scores it is the mean.
#
# *Third*: once it is a softmax, the scores need not be equal.

# %% alt="Three triangles: scores of 0, their softmax with equal weights in a row, other scores with unequal ones."
future = torch.ones(T, T, dtype=torch.bool).triu(1)  # True above the diagonal: positions to come
equal = torch.zeros(T, T).masked_fill(future, -math.inf)
unequal = torch.randn(T, T).mul(1.5).masked_fill(future, -math.inf)

assert torch.allclose(equal.softmax(dim=-1) @ x, by_loop)

figure, both = plt.subplots(1, 3, figsize=(9.5, 3.3), dpi=100, layout="constrained")
heat_map(both[0], equal, written=True, vmin=-3, vmax=3, cmap="PuOr")
heat_map(both[1], equal.softmax(dim=-1), written=True, vmin=0, vmax=1)
heat_map(both[2], unequal.softmax(dim=-1), written=True, vmin=0, vmax=1)
for axes, title in zip(
    both, ("scores: 0, and −∞ where empty", "softmax: the mean", "softmax of other scores"), strict=True
):
    axes.set_title(title, size=10)
plt.show()

# %% [markdown]
# ## Attention: let the content decide
#
# A plain mean drowns the one letter that matters among a hundred that do not. A vowel may want to know which consonant
# came before; a comma, how long the clause has been. So let each position *say what it looks for*, a vector $q$ (its
# query), and *what it is*, a vector $k$ (its key). The score of position $i$ for position $j$ is how well they fit:
# the dot product $q_i \cdot k_j$. And what is handed over is not the embedding itself but a third vector, $v$ (its
# value). All three are linear maps of the embedding, and learned.
#
# $$\text{attention}(q, k, v) = \text{softmax}\left(\frac{q k^\top}{\sqrt{D}} \text{, the future masked}\right) v$$
#
# Why $\sqrt{D}$, where $D$ is the length of $q$ and $k$? The sum of $D$ products of independent numbers of variance 1
# has variance $D$. Without the division, scores grow with the width, and the softmax of large scores puts all
# weight on one position: from then on nothing else gets a gradient. Here, for random vectors and 32 positions:

# %% alt="Without the division the largest weight grows with the width from 0.2 to 0.95; with it, it stays near 0.16."
widths = [2**i for i in range(1, 11)]
largest = {"with": [], "without": []}
for D in widths:
    q, k = torch.randn(300, D), torch.randn(300, 32, D)
    scores = (k @ q[..., None]).squeeze(-1)  # (300, 32)
    largest["with"].append((scores / math.sqrt(D)).softmax(dim=-1).amax(dim=-1).mean())
    largest["without"].append(scores.softmax(dim=-1).amax(dim=-1).mean())

figure, axes = curve_axes("width D of queries and keys", "largest of 32 weights, mean", size=(6.5, 3.5))
axes.plot(widths, largest["without"], "o-", color=COLORS[1], label="softmax(q·k)")
axes.plot(widths, largest["with"], "o-", color=COLORS[0], label="softmax(q·k / √D)")
axes.axhline(1 / 32, color="gray", linestyle=":", label="all equal, 1/32")
axes.set(ylim=(0, 1))
axes.set_xscale("log", base=2)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ### Exercise 2: attention weights
# You have all the pieces: scores, the division, the mask, the softmax.


# %%
def attention_weights(q, k):
    """The weights (T, T) of causal attention: row i is what position i takes from each position.

    q and k have the shape (T, D).
    """
    ...


check("attention_weights", attention_weights)

# %% [markdown]
# ## A real layer
#
# From here on we use real weights: those of a small GPT of the library, made a little wilder than new ones are, so that
# a mistake would show. `w` is a plain dictionary from names to tensors. The names are GPT-2's own.

# %%
from groundup.config.model import GPTConfig
from groundup.model.gpt import GPT
from groundup.model.init import init_weights

config = GPTConfig(n_layer=3, n_head=4, n_embd=32, block_size=64, vocab_size=62)
model = init_weights(GPT(config), seed=1)
with torch.no_grad():
    for parameter in model.parameters():
        parameter += 0.2 * torch.randn(parameter.shape)
w = dict(model.state_dict())

for name, tensor in w.items():
    if not name.startswith(("h.1", "h.2")):
        print(f"{name:24}{tuple(tensor.shape)}")

# %% [markdown]
# One attention layer does the above several times side by side. A softmax has one set of weights, so one head can
# only look for one kind of thing; $H$ *heads* look for $H$ things, each with queries, keys and values of
# width $D = C/H$. Nothing gets more expensive: the same $C$ columns are cut into $H$ groups.
#
# `c_attn` makes all queries, keys and values at once: one product with a matrix of $3C$ rows. Then each of the three
# is cut into heads.
#
# ### Exercise 3: split into heads
# The one step of a transformer in which shapes are easy to get right and numbers easy to get wrong.


# %%
def split_heads(x, n_head):
    """From (T, C) to (n_head, T, C // n_head): head h gets the columns h * D to (h + 1) * D, where D = C // n_head."""
    ...


check("split_heads", split_heads)

# %% [markdown]
# Now the layer, as a function of $x$ (T, C) and the weights. The heads' results are laid side by side
# again, and `c_proj` mixes them.


# %%
def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def attention(x: Tensor, w: dict[str, Tensor], name: str, n_head: int) -> Tensor:
    T, C = x.shape
    D = C // n_head
    q, k, v = (part.view(T, n_head, D).transpose(0, 1) for part in linear(x, w, f"{name}.c_attn").split(C, dim=1))
    scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # (H, T, T)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -math.inf).softmax(dim=-1)  # (H, T, T), rows sum to 1
    heads = weights @ v  # (H, T, D)
    return linear(heads.transpose(0, 1).reshape(T, C), w, f"{name}.c_proj")


x = torch.randn(20, config.n_embd)
difference = (attention(x, w, "h.0.attn", config.n_head) - model.h[0].attn(x[None])[0]).abs().max().item()
print(f"our attention and groundup.model's: they differ by {difference:.0e} at most")
assert difference < 1e-12

# %% [markdown]
# The library's layer never holds the matrix of weights: `F.scaled_dot_product_attention` works through it in
# tiles, which saves memory and time. The numbers are these.
#
# ## Attention does not know where anything is
#
# Something is missing. A weighted mean does not change when its terms change places. So what the last position
# gathers is the same whichever order the others come in, and *dog bites man* is *man bites dog*:

# %%
shuffled = torch.cat((x[torch.randperm(19)], x[19:]))
last = attention(x, w, "h.0.attn", config.n_head)[-1]
last_shuffled = attention(shuffled, w, "h.0.attn", config.n_head)[-1]
print(f"last position, its past shuffled: changes by {(last - last_shuffled).abs().max():.0e}")

positions = w["wpe.weight"][:20]
last = attention(x + positions, w, "h.0.attn", config.n_head)[-1]
last_shuffled = attention(shuffled + positions, w, "h.0.attn", config.n_head)[-1]
print(f"the same with positions added:    changes by {(last - last_shuffled).abs().max():.2f}")

# %% [markdown]
# GPT-2's answer is blunt and works: a second table, `wpe`, with a learned vector for each *place*, added to the
# vector of the token. Place 0, place 1, up to `block_size`; beyond that the model cannot look. (The library also knows
# rotary positions, in `model/modern.py`, which turn queries and keys instead.)
#
# ## Staying trainable: the residual stream and the norm
#
# One layer of attention gathers letters; words and meanings need layers on top of layers. Stacking as such
# fails: each layer multiplies the gradient that passes through, and a product of many factors vanishes or explodes.
#
# Two habits cure it. The first: a layer does not *replace* the stream, it *adds* to it, `x = x + layer(x)`. The
# derivative of `x` is 1, so the gradient has a way straight from the loss to the first layer. Let us measure what
# reaches the input of a stack of layers, one of them being a random linear map and a tanh:


# %% alt="Without residuals the gradient falls to 1e-23 at 48 of them; with residuals it stays between 0.1 and 10."
def gradient_at_input(depth, *, residual):
    generator = torch.Generator().manual_seed(depth)
    x = start = torch.randn(16, 64, generator=generator, requires_grad=True)
    for _ in range(depth):
        y = torch.tanh(x @ torch.randn(64, 64, generator=generator) * (0.6 / 8))
        x = x + y if residual else y
    (gradient,) = torch.autograd.grad(x.pow(2).mean(), start)
    return gradient.norm().item()


depths = [1, 2, 4, 8, 16, 32, 48]
figure, axes = curve_axes("layers", "gradient at the input", size=(6.5, 3.5))
for residual, color, label in ((False, COLORS[1], "x = layer(x)"), (True, COLORS[0], "x = x + layer(x)")):
    axes.plot(depths, [gradient_at_input(d, residual=residual) for d in depths], "o-", color=color, label=label)
axes.set(yscale="log")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# Forty-eight layers, as in the largest GPT-2: with a residual stream the gradient arrives, without one it is gone.
#
# The price: what is added to again and again grows. So comes the second habit: each layer looks at a *normalized*
# copy of the stream. Every position's vector is shifted to mean 0, scaled to variance 1, and then scaled and shifted
# by learned numbers, so that nothing is lost that the model wants to keep.
#
# ### Exercise 4: layer norm


# %%
def layer_norm(x, weight, bias):
    """Each row of x shifted to mean 0 and scaled to variance 1, then times weight, plus bias.

    x has the shape (T, C), weight and bias (C,). The variance is the mean of squares (divide by C, not by C - 1), and
    1e-5 is added to it before the root, so that a constant row does not divide by zero.
    """
    ...


check("layer_norm", layer_norm)

# %% [markdown]
# ## Thinking: the MLP
#
# Attention moves information between positions, but it only takes means. What a position *makes* of what it has
# gathered is the work of two linear maps with a bend between them, the same for each position and applied to each
# alone: four times wider, then back. Two thirds of a block's parameters live here.
#
# The bend is GELU: like ReLU it lets large numbers pass and stops small ones, but smoothly. GPT-2 was trained with this
# approximation of it, so we keep it, digit for digit.


# %%
def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def mlp(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return linear(gelu(linear(x, w, f"{name}.c_fc")), w, f"{name}.c_proj")


assert torch.allclose(mlp(x, w, "h.0.mlp"), model.h[0].mlp(x[None])[0], rtol=0, atol=1e-12)

# %% [markdown]
# ## All of it
#
# Communicate, think, communicate, think. Each part reads from the residual stream through a norm and adds to it
# what it found. At the end one more norm, and each position's vector is compared with the embedding of each token: the
# more alike, the larger the logit. (Input and output share one table, `wte`: what a token means when it is read and
# when it is to be written is the same. With two tables the small GPT-2 would be a third larger.)


# %%
def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    centered = x - x.mean(dim=-1, keepdim=True)
    variance = centered.pow(2).mean(dim=-1, keepdim=True)
    return centered / torch.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def gpt(ids: Tensor, w: dict[str, Tensor], config: GPTConfig) -> Tensor:
    """Logits (T, V) of the token after each of T tokens."""
    x = w["wte.weight"][ids] + w["wpe.weight"][: len(ids)]  # (T, C)
    for layer in range(config.n_layer):
        x = x + attention(norm(x, w, f"h.{layer}.ln_1"), w, f"h.{layer}.attn", config.n_head)
        x = x + mlp(norm(x, w, f"h.{layer}.ln_2"), w, f"h.{layer}.mlp")
    return norm(x, w, "ln_f") @ w["wte.weight"].T


ids = torch.randint(config.vocab_size, (config.block_size,))
ours, theirs = gpt(ids, w, config), model(ids[None])[0]
print(
    f"largest logit {theirs.abs().max():.1f}; our page and groundup.model differ by {(ours - theirs).abs().max():.0e}"
)
assert (ours - theirs).abs().max() < 1e-10

# %% [markdown]
# That is GPT-2. Not like GPT-2: this function with the published weights *is* the published model, and
# [notebook 6](gpt2.ipynb) loads them. The library has a page like ours too, `src/groundup/model/reference.py`; its
# tests hold the fast model to it, and to the one of Hugging Face.
#
# One property is worth a test of its own, because if it fails everything looks wonderful until you write text: no
# position may know what comes after it. Change the last token, and no logit before it may move.

# %%
changed = ids.clone()
changed[-1] = (changed[-1] + 1) % config.vocab_size
moved = (gpt(changed, w, config) - ours).abs().amax(dim=-1) > 0
print(f"positions whose logits changed: {moved.nonzero().flatten().tolist()} of 0 to {len(ids) - 1}")
assert moved.nonzero().flatten().tolist() == [len(ids) - 1]

# %% [markdown]
# ### Exercise 5: count the parameters
# Walk through the list of names and shapes above and add them up. The published GPT-2 has 12 layers, width 768, a
# context of 1,024 and 50,257 tokens. Do you arrive at its 124,439,808 parameters?


# %%
def count_parameters(n_layer, n_embd, block_size, vocab_size):
    """All numbers a GPT-2 learns: both embeddings, every weight, bias and norm; the head is wte, and counts once."""
    ...


check("count_parameters", count_parameters)

# %% [markdown]
# ## Let it learn
#
# Now a real run, with the library's own loop: the one behind `groundup train`, on the plays. The
# model is tiny, two layers of four heads, with a context of 32 letters. ([Notebook 4](training.ipynb) explains what the
# loop does.)

# %% alt="The loss falls from 4.1 below the 2.474 of pairs after 100 steps; held out ends at 1.95, training near 1.8."
import json
from pathlib import Path

from rich.console import Console

from groundup.checkpoint.model_folder import load_model
from groundup.config.data import DataConfig
from groundup.config.train import CheckpointConfig, EvalConfig, OptimConfig, RuntimeConfig, TrainConfig
from groundup.training.run import train

torch.set_default_dtype(torch.float32)
torch.set_num_threads(1)
folder = TemporaryDirectory()
tiny = TrainConfig(
    name="tiny",
    out_dir=Path(folder.name),
    model=GPTConfig(n_layer=2, n_head=4, n_embd=64, block_size=32),
    data=DataConfig(source="shakespeare", cache_dir=Path(folder.name)),
    max_steps=700,
    tokens_per_step=24 * 32,
    optim=OptimConfig(name="muon", lr=5e-3, muon_lr_ratio=4.0, warmup_steps=20),
    eval=EvalConfig(every=100, max_tokens=16_384, sample_every=0),
    checkpoint=CheckpointConfig(every=700),
    runtime=RuntimeConfig(device="cpu", precision="fp32", compile="off", micro_batch_size=24, threads=1),
)
train(tiny, resume=False, command="build_gpt.ipynb", console=Console(quiet=True))

rows = [json.loads(line) for line in (tiny.run_dir / "metrics.jsonl").read_text().splitlines()]
bigram_loss = json.loads((tiny.run_dir / "run.json").read_text())["bigram_loss"]
curve = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
val = [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row]

figure, axes = curve_axes("step", "loss (nats per letter)", size=(6.5, 3.5))
axes.plot(*zip(*curve, strict=True), color=COLORS[4], linewidth=1, label="on what it learns from")
axes.plot(*zip(*val, strict=True), "o-", color=COLORS[0], label=f"held out, {val[-1][1]:.3f} at the end")
axes.axhline(bigram_loss, color=COLORS[1], linestyle="--", linewidth=1.2, label=f"pairs of letters, {bigram_loss:.3f}")
axes.legend(frameon=False)
plt.show()
assert val[-1][1] < bigram_loss - 0.3

# %% [markdown]
# It starts at $\ln 62$, like everybody. In a hundred steps it has learned what pairs of letters can tell, and then it
# goes on, because it can look further back. And its weights, put into *our* function, compute what it computes:

# %%
loaded = load_model(tiny.run_dir)
trained, tokenizer = loaded.model, loaded.tokenizer
text = "not to be: that is the"
ids = torch.tensor(tokenizer.encode(text))
with torch.no_grad():
    ours = gpt(ids, dict(trained.state_dict()), trained.config)
    assert torch.allclose(ours, trained(ids[None])[0], rtol=0, atol=1e-4)  # six digits now: float32

likeliest = ours[-1].softmax(dim=-1).topk(4)
print(f"after {text!r}:", {tokenizer.decode([i]): round(p.item(), 2) for p, i in zip(*likeliest, strict=True)})

from groundup.generation.text import TextGenerator

print(TextGenerator(trained, tokenizer).generate("ROMEO:\n", max_new_tokens=250, seed=4)[0])

# %% [markdown]
# ## Where it looks
#
# `attention_patterns` takes the weights of all heads out of a model, the same rows that sum to 1 which you computed
# in exercise 2. Each picture is one head; the row is the letter that looks, the column the one it looks at.

# %% alt="Eight heads as triangles: most look at nearby letters; head 1 of layer 1 looks at the letter at one place."
from groundup.inspection.attention import attention_patterns, draw_attention

patterns = attention_patterns(trained, ids)
draw_attention(patterns, list(text))

# %% [markdown]
# Nobody told any head what to do. Yet most of the first layer looks at the letter just before, or two or three before:
# the model has rediscovered pairs and triples of letters, and gathers them in the stream. In the second layer some
# heads reach further: to the colon, after which everything is new, or to a space, where the word began. A number for each head says it
# more soberly than the eye: how far back it looks, on average, and how much of its weight lies on the letter before.

# %%
distance = torch.arange(len(ids))[:, None] - torch.arange(len(ids))[None, :]
later = patterns[:, :, 8:]  # rows with some past to choose from
print("layer head   letters back, mean   weight on itself   on the letter before   on all older ones")
for layer in range(trained.config.n_layer):
    for head in range(trained.config.n_head):
        rows = later[layer, head]
        back = (rows * distance[8:]).sum(dim=-1).mean()
        itself, before = (rows[distance[8:] == d].mean() for d in (0, 1))
        print(f"{layer:5} {head:4} {back:19.1f} {itself:18.2f} {before:22.2f} {1 - itself - before:19.2f}")
folder.cleanup()

# %% [markdown]
# Try it with a model that has learned longer: `make demo` trains one in minutes; then `load_model("../runs/shakespeare")`
# in place of ours.
#
# **What to keep**
#
# - Attention is a weighted mean of the past; the weights are a softmax of how well queries fit keys.
# - Heads look for several things at once; `c_proj` mixes what they found.
# - Without positions, order is invisible.
# - Residual stream and norms carry gradients through any depth; the MLP works on what was gathered.
# - It fits on a page, and the page is exact.
#
# Solutions: [solutions/build_gpt](solutions/build_gpt.ipynb). Next: [tokenization](tokenization.ipynb). The code:
# `src/groundup/model/gpt.py`, `attention.py`, `layers.py`, and the page of functions, `reference.py`.
