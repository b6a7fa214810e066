# %% [markdown]
# # 5. Inference: how a model speaks
#
# A language model does not write. It reads tokens and answers with a number for each token that could come next. Whatever
# happens between those numbers and a text is up to us, and that is this notebook:
#
# 1. one distribution, and what temperature, top-k and top-p make of it;
# 2. why always taking the likeliest token ends in a loop;
# 3. the KV cache: from work that grows with $n^2$ to work that grows with $n$, counted and measured;
# 4. proof that the cached step computes the same as the whole forward pass.
#
# First we need a model with something to say. The real training loop makes one in a few seconds: 200 thousand parameters
# on the plays of Shakespeare, character by character.

# %%
import math
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from torch import Tensor

from groundup.checkpoint.model_folder import load_model
from groundup.config.data import DataConfig
from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import MODELS
from groundup.config.train import EvalConfig, OptimConfig, RuntimeConfig, TrainConfig
from groundup.generation.engine import Engine, generate_ids
from groundup.generation.requests import Request
from groundup.generation.sampling import apply_temperature, apply_top_k, apply_top_p
from groundup.generation.text import TextGenerator
from groundup.inspection.plots import COLORS, curve_axes, visible
from groundup.learn.exercises import exercises
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.planner.flops import forward_flops_per_token
from groundup.planner.memory import kv_cache_bytes
from groundup.training.run import train

check = exercises("inference")
folder = TemporaryDirectory()
config = TrainConfig(
    name="speaker",
    out_dir=Path(folder.name, "runs"),
    max_steps=260,
    tokens_per_step=8 * 128,
    model=ModernConfig(n_layer=2, n_head=3, n_embd=96, block_size=128),
    data=DataConfig(source="shakespeare", cache_dir=Path(folder.name, "data")),
    optim=OptimConfig(name="muon", lr=1e-2, muon_lr_ratio=2.0, warmup_steps=20),
    eval=EvalConfig(every=260, max_tokens=16_384, sample_every=0),
    runtime=RuntimeConfig(micro_batch_size=8, compile="off", device="cpu", precision="fp32"),
)
train(config, resume=False, command="notebook", console=Console(quiet=True))
speaker = load_model(config.run_dir)
model, tokenizer = speaker.model, speaker.tokenizer
print(f"{math.log(tokenizer.vocab_size):.2f} nats per character before the first step: ln {tokenizer.vocab_size}")
print(f"{speaker.info['val_loss']:.2f} after {config.max_steps} steps")

# %% [markdown]
# ## 1. One distribution
#
# Here is what the model thinks after `My lord, `, where a word begins. The logits are any numbers; softmax makes probabilities of them.

# %%
prompt = "HAMLET:\nMy lord, "
with torch.no_grad():
    logits = model(torch.tensor([tokenizer.encode(prompt)]))[:, -1]  # (1, V): after the last character
order = logits[0].argsort(descending=True)[:18]
symbols = [visible(tokenizer.decode([i])) for i in order.tolist()]
for symbol, p in zip(symbols[:5], logits[0].softmax(-1)[order[:5]].tolist(), strict=True):
    print(f"{symbol}  {p:.1%}")

# %% [markdown]
# Three knobs change it before a token is drawn, and they are applied in this order:
#
# - **temperature** $T$ divides the logits: below 1 the likely becomes likelier, above 1 all become more alike. As
#   $T \to 0$ only the likeliest is left;
# - **top-k** keeps the $k$ likeliest tokens;
# - **top-p** keeps the smallest set of likeliest tokens that together have at least the probability $p$ (the *nucleus*).
#
# What is not kept gets the logit $-\infty$, and softmax gives its probability to the others.

# %% alt="Six charts of the likeliest letters: temperature makes them steeper or flatter, top-k and top-p cut it."
panels = {
    "as the model says": logits,
    "temperature 0.5": apply_temperature(logits, 0.5),
    "temperature 2": apply_temperature(logits, 2.0),
    "top-k 5": apply_top_k(logits, 5),
    "top-p 0.8": apply_top_p(logits, 0.8),
    "temperature 2, then top-p 0.8": apply_top_p(apply_temperature(logits, 2.0), 0.8),
}
fig, axes = plt.subplots(2, 3, figsize=(10, 4.6), sharey=True, layout="constrained")
for ax, (title, changed) in zip(axes.flat, panels.items(), strict=True):
    p = changed[0].softmax(-1)
    kept = int((p > 0).sum())
    entropy = (p[p > 0] * -p[p > 0].log2()).sum()
    ax.bar(range(len(symbols)), p[order], color=[COLORS[0] if q > 0 else "none" for q in p[order]])
    ax.set_xticks(range(len(symbols)), symbols, family="monospace")
    ax.set_title(title, size=10)
    ax.text(0.97, 0.85, f"{kept} kept\n{entropy:.1f} bits", transform=ax.transAxes, ha="right", va="top", size=9)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="x", length=0, labelsize=8)
for ax in axes[:, 0]:
    ax.set_ylabel("probability")
plt.show()

# %% [markdown]
# The bits are the entropy: $b$ bits of it are as uncertain as $2^b$ equally likely characters.
#
# Top-k keeps as many tokens where only one can come as where any can. Top-p follows the model: where it is sure, the
# nucleus is one token, where it is not, it is many. Watch it breathe over a line of verse; each bar is the number of
# characters that top-p 0.9 would keep *at the place of* the character below it.

# %% alt="How many letters top-p 0.9 keeps along a line: up to 20 where a word begins, few within most words."
line = "HAMLET:\nTo be, or not to be, that is the question"
ids = torch.tensor([tokenizer.encode(line)])
with torch.no_grad():
    kept = apply_top_p(model(ids)[0], 0.9).isfinite().sum(-1)
start = line.index("To")
fig, ax = curve_axes("", "kept by top-p 0.9", size=(10, 2.6))
places = range(start, len(line))
ax.bar(places, kept[start - 1 : -1], color=COLORS[0])
ax.axhline(10, color=COLORS[1], lw=1)
ax.text(len(line), 10, "top-k 10", color=COLORS[1], va="center", backgroundcolor="white")
ax.set_xlim(start - 1, len(line) + 4)
ax.set_xticks(places, [visible(c) for c in line[start:]], family="monospace")
ax.grid(visible=False)
plt.show()

# %% [markdown]
# At the beginning of a word anything can come; inside a word, and after `q`, little.
#
# > **Exercise 1.** Top-p: which tokens are kept? `probabilities` is one row that sums to 1 (no two are equal); return a
# > mask of the same length. The token with which the sum reaches `p` belongs to the set, so there is always one.

# %%


def nucleus(probabilities: Tensor, p: float) -> Tensor:
    """True for every token that top-p keeps."""
    ...


check("nucleus", nucleus)

# %% [markdown]
# **Drawing.** Lay the probabilities side by side on a line from 0 to 1, and throw a dart: the token it hits is the next
# one. One uniform random number a token is all the chance there is in a model that speaks. (Here the likeliest comes first;
# any fixed order will do.)

# %% alt="A line from 0 to 1, cut into pieces as wide as each letter is likely; the dart at 0.62 hits the m."
p = logits[0].softmax(-1)
fig, ax = plt.subplots(figsize=(10, 1.1), layout="constrained")
left = 0.0
for k, (symbol, width) in enumerate(zip(symbols, p[order].tolist(), strict=True)):
    ax.barh(0, width, left=left, color=COLORS[k % 6], edgecolor="white")
    if width > 0.012:
        ax.text(left + width / 2, 0, symbol, ha="center", va="center", color="white", family="monospace")
    left += width
ax.barh(0, 1 - left, left=left, color="#999999")
ax.text((1 + left) / 2, 0, "the others", ha="center", va="center", color="white")
ax.axvline(0.62, color="black", lw=2)
ax.set(xlim=(0, 1), yticks=[], title="a dart at u = 0.62")
ax.spines[["top", "right", "left"]].set_visible(False)
plt.show()

# %% [markdown]
# > **Exercise 2.** Which token does the dart hit? The tokens lie in the order of their ids: token 0 has the interval from
# > 0 to `probabilities[0]`, its right end excluded, token 1 follows, and so on. A token of probability 0 is never hit.

# %%


def hit(probabilities: Tensor, u: float) -> int:
    """The id of the token that a uniform number u in [0, 1) falls on."""
    ...


check("hit", hit)

# %% [markdown]
# ## 2. Greedy decoding loops
#
# Temperature 0 takes the likeliest token every time. Nothing random is left, and what the model sees decides what it
# writes. As soon as it has written something that it has written before, it tends to go on as it did before, and that
# makes the repetition still likelier.

# %%
text = TextGenerator(model, tokenizer)
greedy = text.generate("HAMLET:\n", max_new_tokens=300, sampling=SamplingConfig(temperature=0))[0]
print(greedy)


def repeated(words: str, n: int = 12) -> float:
    """Share of the pieces of n characters that came before."""
    pieces = [words[i : i + n] for i in range(len(words) - n + 1)]
    return 1 - len(set(pieces)) / len(pieces)


print(f"\n{repeated(greedy):.0%} of all stretches of 12 characters were there before")

# %% [markdown]
# The likeliest *next* token is not the way to the likeliest *text*, and people do not write the likeliest text anyway:
# it says nothing. So we draw. Too hot, and it babbles; too cold, and it loops; the usual place is between 0.7 and 1, with
# the tail cut off by top-k or top-p.

# %%
for temperature in (0.3, 0.8, 1.5):
    drawn = text.generate(
        "HAMLET:\n", max_new_tokens=300, sampling=SamplingConfig(temperature=temperature), num_samples=4, seed=7
    )
    share = sum(map(repeated, drawn)) / 4
    print(f"--- temperature {temperature}: {share:.0%} repeated; the first of four begins")
    print(drawn[0][:160].strip(), "\n")

# %% [markdown]
# > **Exercise 3.** Decode greedily: return the `n` ids that follow a prompt, each the likeliest after all before it. The
# > model takes a tensor of shape `(1, T)` and gives logits of shape `(1, T, V)`; read everything again for every token.

# %%


def greedy_decode(model: GPT, prompt: list[int], n: int) -> list[int]:
    """The n likeliest ids, one after the other."""
    ...


check("greedy_decode", greedy_decode)

# %% [markdown]
# ## 3. The KV cache
#
# Reading everything again for every token is a waste. In a causal model a token never sees what comes after it, so its
# keys and values in every layer stay what they were when it was read. Keep them, and the next step reads *one* token:
# its query meets the stored keys, and takes from the stored values.
#
# Count it. A forward pass over one token with $t$ tokens of context costs about $2N + 4 L C t$ operations: each of the $N$
# weights multiplies once and adds once, and attention compares with $t$ keys and mixes $t$ values. The $t$-th token costs
#
# - without a cache $t$ such passes, so that $n$ tokens cost a multiple of $n^2 N$;
# - with it one pass, so that $n$ tokens cost a multiple of $n N$.
#
# The planner counts for GPT-2 (124M):

# %% alt="Operations by tokens written, both axes logarithmic: without a cache the line is twice as steep."
gpt2 = MODELS["gpt2"]
lengths = range(1, gpt2.block_size + 1)
without_cache, with_cache = [0.0], [0.0]
for t in lengths:
    per_token = forward_flops_per_token(gpt2, t)
    without_cache.append(without_cache[-1] + t * per_token)
    with_cache.append(with_cache[-1] + per_token)

fig, ax = curve_axes("tokens written", "operations, in all", size=(7, 3.6))
ax.loglog(lengths, without_cache[1:], color=COLORS[1], label="reading everything again")
ax.loglog(lengths, with_cache[1:], color=COLORS[0], label="with a KV cache")
ax.legend(frameon=False)
plt.show()
for n in (64, 256, 1024):
    ratio = without_cache[n] / with_cache[n]
    print(f"{n:5d} tokens: {without_cache[n]:.2e} against {with_cache[n]:.2e}, {ratio:.0f} times")
attention = 1 - forward_flops_per_token(gpt2, 0) / forward_flops_per_token(gpt2, 1024)
print(f"attention's share of the 1024th token: {attention:.0%}")

# %% [markdown]
# To be exact: attention itself still looks at all $t$ tokens, so with the cache the sum still has a part that grows
# with $n^2$. But that part is attention alone, without the weights: an eighth of the work at GPT-2's full context.
#
# Now measured, on this machine, with a model of random weights (speed does not ask what they say): the time of one step,
# by the number of tokens before it.

# %% alt="Milliseconds for the next token: with a cache nearly level, without one they grow faster than the context."
timed = init_weights(GPT(GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=512, vocab_size=256)), seed=0).eval()
tokens = torch.randint(256, (1, 512), generator=torch.Generator().manual_seed(0))


def milliseconds(work: Callable[[], object]) -> float:
    """Of one try."""
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)


contexts = [1, 64, 128, 192, 256, 320, 384, 448, 511]
again, cached = [math.inf] * len(contexts), [math.inf] * len(contexts)
with torch.inference_mode():
    cache = timed.new_cache(1, 512)
    for _ in range(8):  # the fastest of some rounds: whatever else the machine does only adds
        timed(tokens[:, cache.length : 511], cache=cache)  # fill the cache again
        for k, t in reversed(list(enumerate(contexts))):
            cache.truncate(t)
            cached[k] = min(cached[k], milliseconds(lambda t=t: timed(tokens[:, t : t + 1], cache=cache)))
            again[k] = min(again[k], milliseconds(lambda t=t: timed(tokens[:, : t + 1])))

fig, ax = curve_axes("tokens before", "milliseconds for the next token", size=(7, 3.4))
ax.plot(contexts, again, "o-", color=COLORS[1], label="reading everything again")
ax.plot(contexts, cached, "o-", color=COLORS[0], label="with a KV cache")
ax.set_ylim(bottom=0)
ax.legend(frameon=False)
plt.show()
print(f"after {contexts[-1]} tokens the cache makes a step about {again[-1] / cached[-1]:.0f} times as fast here")

# %% [markdown]
# ## 4. The same numbers
#
# An optimization is right when nothing changes but the time. We read a text whole, then token by token through the cache,
# in double precision, and compare the logits at every position.

# %%
double = init_weights(GPT(timed.config), seed=0).double().eval()
with torch.inference_mode():
    whole = double(tokens[:, :100])
    cache = double.new_cache(1, 100)
    pieces = [double(tokens[:, t : t + 1], cache=cache) for t in range(100)]
difference = (torch.cat(pieces, dim=1) - whole).abs().max().item()
print(f"largest difference of any logit at any of 100 positions: {difference:.1e}")
assert difference < 1e-12

# %% [markdown]
# The cache is an argument of `forward`, and it has a price: memory, two vectors (key and value) of $C$ numbers for every
# layer and every token of every conversation. For GPT-2 at full length, in 16 bits:

# %%
for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"):
    size = kv_cache_bytes(MODELS[name], batch_size=1, tokens=1024, width=2)
    print(f"{name:12s} {size / 2**20:6.0f} MiB a conversation of 1024 tokens")

# %% [markdown]
# > **Exercise 4.** How many bytes does a cache take? It is compared with the tensors of real ones.

# %%


def cache_bytes(n_layer: int, n_embd: int, n_tokens: int, batch_size: int, bytes_per_number: int) -> int:
    """Size of the keys and values of all layers."""
    ...


check("cache_bytes", cache_bytes)

# %% [markdown]
# > **Exercise 5.** Decode greedily once more, now with a cache. `cache = model.new_cache(1, room)` makes an empty one for
# > `room` tokens, and `model(idx, cache=cache)` reads tokens *behind* those it holds. Read the prompt once, then one token
# > a step. The check counts the tokens that your function lets the model read.

# %%


def cached_decode(model: GPT, prompt: list[int], n: int) -> list[int]:
    """The same n ids as greedy_decode, reading every token once."""
    ...


check("cached_decode", cached_decode)

# %% [markdown]
# ## 5. All of it together
#
# `groundup.generation.engine` is that loop: prefill (read the prompt, once for all samples), then a tick for each token.
# Several samples go side by side: a step must fetch all weights from memory whether it serves one text or eight, so
# eight cost far less than eight times one.

# %%
prompt_ids = tuple(tokens[0, :16].tolist())
rates = {}
for num_samples in (1, 2, 4, 8):
    engine = Engine(timed, n_slots=num_samples)
    engine.submit(Request(prompt=prompt_ids, max_new_tokens=100, sampling=SamplingConfig(top_k=50), n=num_samples))
    engine.tick()  # the prompt
    engine.tick()  # the other samples join
    rates[num_samples] = num_samples / min(milliseconds(engine.tick) for _ in range(60))
for num_samples, rate in rates.items():
    print(f"{num_samples} side by side: {rate / rates[1]:.1f} times the tokens a second")

ids = generate_ids(
    model,
    tokenizer.encode("ROMEO:\n"),
    max_new_tokens=80,
    sampling=SamplingConfig(temperature=0.7),
    seed=3,
)
print("\nROMEO:\n" + tokenizer.decode([token for (token,) in ids]))

# %% [markdown]
# And with text around it, piece by piece as it comes, the way a chat window shows it. Stop strings end it where the next
# speaker would begin:

# %%
for piece in text.stream(
    "JULIET:\n", max_new_tokens=200, sampling=SamplingConfig(temperature=0.7, top_p=0.95), seed=5, stop=["\n\n"]
):
    print(piece, end="")

# %% [markdown]
# ## What to take along
#
# - A model gives a distribution; temperature, top-k and top-p change it; a uniform number picks from it.
# - Top-p follows how sure the model is, top-k does not.
# - Greedy decoding repeats itself: the likeliest next token again and again is not a good text.
# - With a KV cache a token is read once. It changes the work from $n^2$ to $n$ passes through the weights, and no number.
#
# On the command line: `groundup generate RUN --prompt "ROMEO:" --temperature 0.8 --top-p 0.95 --stream`. Next:
# [`gpt2`](gpt2.ipynb), the published models. Solutions: [`solutions/inference`](solutions/inference.ipynb).

# %%
folder.cleanup()
