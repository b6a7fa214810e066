# %% [markdown]
# # 4. Training: how random weights learn
#
# In `build_gpt` we made the model. Here we make it learn, and each number along the way is one you can predict or
# recompute:
#
# 1. the loss before the first step is $\ln V$, or something is wrong;
# 2. how large the first weights are, seen in the activations they make;
# 3. AdamW, written by hand and compared with the real one;
# 4. the learning rate over time: warmup, then a cosine;
# 5. gradient accumulation, proved equal to a large batch;
# 6. sixteen-bit numbers: what overflows, what vanishes, and what loss scaling does about it;
# 7. a small run with groundup's own loop, the one that also trains GPT-2 on eight GPUs.
#
# Everything runs on a laptop's CPU. Nothing below is a copy of the library: it *is* the library, imported.

# %%
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from groundup.config.data import DataConfig
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.presets import RECIPES
from groundup.config.train import OptimConfig
from groundup.data.loader import TrainBatches
from groundup.generation.text import TextGenerator
from groundup.inspection.plots import COLORS, curve_axes
from groundup.learn.exercises import exercises
from groundup.model.bigram import fit_bigram
from groundup.model.gpt import GPT
from groundup.model.init import STD, init_weights
from groundup.model.loss import IGNORE, LossModule
from groundup.model.modern import Modern
from groundup.optim.build import build_optimizers
from groundup.optim.schedule import cosine_scale
from groundup.prepare.corpus import open_corpus

check = exercises("training")

# %% [markdown]
# The text is the plays of Shakespeare, cut into single characters: 62 of them. `open_corpus` prepares it as token shards
# (see `groundup prepare`) in a folder that is thrown away at the end.

# %%
folder = TemporaryDirectory()
corpus = open_corpus(DataConfig(source="shakespeare", cache_dir=Path(folder.name)))
tokenizer = corpus.tokenizer()
small = ModernConfig(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=tokenizer.vocab_size)


def batches(micro_batch_size: int = 8) -> TrainBatches:
    """The stream of training batches, from its beginning."""
    return TrainBatches(corpus.split("train"), block_size=small.block_size, micro_batch_size=micro_batch_size, seed=1)


idx, targets = batches().next_batch()
print(f"V = {tokenizer.vocab_size} characters; a batch is {tuple(idx.shape)} = (B, T)")
print("read:   ", repr(tokenizer.decode(idx[0, :40].tolist())))
print("predict:", repr(tokenizer.decode(targets[0, :40].tolist())))

# %% [markdown]
# ## 1. The first loss is ln V
#
# The loss is $-\ln p$ of the token that really came, averaged. A model that knows nothing should give each of $V$ tokens
# the probability $1/V$, so its loss is $-\ln(1/V) = \ln V$. That is the cheapest test of a training setup there is:
# compute it before the first step. Below it, the model has seen the answer. Far above it, the model is sure of nonsense,
# and its first hundred steps go into unlearning that.

# %%


def mean_loss(model: GPT) -> float:
    """Mean loss over one batch, in nats per character."""
    with torch.no_grad():
        return (LossModule(model)(idx, targets) / targets.numel()).item()


torch.manual_seed(0)
as_pytorch_draws = Modern(
    small
)  # the constructor leaves the numbers that PyTorch's layers draw: embeddings are N(0, 1)
as_gpt2_draws = init_weights(Modern(small), seed=0)  # N(0, 0.02), as published

print(f"ln V                          {math.log(tokenizer.vocab_size):7.3f}")
print(f"groundup's first weights      {mean_loss(as_gpt2_draws):7.3f}")
print(f"PyTorch's default weights     {mean_loss(as_pytorch_draws):7.3f}")

# %% [markdown]
# The head is the token embedding once more (tied weights), so the scale of the embedding is the scale of the logits. The
# last norm hands the head vectors of length $\sqrt{C} = 8$. With embeddings from $N(0, 1)$ the logits of other characters
# have a standard deviation of 8, and that of *the same character again*, with which the stream began, is near $C = 64$:
# the model is certain of something that almost never happens. With 0.02 the logits lie within a few tenths of zero, and
# softmax is nearly flat.
#
# ## 2. How large the first weights are
#
# Each block *adds* to the residual stream twice: once after attention, once after the MLP. Sums of independent numbers
# grow in variance, so the stream of a deep model grows like $\sqrt{2L}$ unless each addition is made smaller. GPT-2
# divides by that factor: the projections that write to the stream (both are called `c_proj`) are drawn with
# $0.02 / \sqrt{2 L}$ instead of 0.02. Watch the stream with and without.

# %% alt="Without scaling the stream grows to 1.02 after 48 blocks; with it all depths from 6 to 48 end at 0.09."


def stream_sizes(config: GPTConfig, *, scaled: bool) -> list[float]:
    """Standard deviation of the residual stream: after the embedding, and after every block."""
    model = init_weights(GPT(config), seed=0)
    if not scaled:  # undo the factor
        with torch.no_grad():
            for name, p in model.named_parameters():
                if name.endswith("c_proj.weight"):
                    p.mul_(math.sqrt(2 * config.n_layer))
    sizes = []
    model.h[0].register_forward_pre_hook(lambda _, args: sizes.append(args[0].std().item()))
    for block in model.h:
        block.register_forward_hook(lambda *args: sizes.append(args[-1].std().item()))
    with torch.no_grad():
        model(torch.arange(64)[None])
    return sizes


wide = GPTConfig(n_head=4, n_embd=256, block_size=64, vocab_size=64)
blues = ("#9ecae1", "#4292c6", "#08519c", "#08306b")
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
for n_layer, color in reversed(list(zip((6, 12, 24, 48), blues, strict=True))):
    for ax, scaled in zip(axes, (False, True), strict=True):
        sizes = stream_sizes(replace(wide, n_layer=n_layer), scaled=scaled)
        ax.plot(sizes, color=color)
        ax.plot(n_layer, sizes[-1], "o", color=color, label=f"{n_layer} layers end at {sizes[-1]:.2f}")
for ax, title in zip(axes, ("c_proj drawn with 0.02", "c_proj drawn with 0.02 / sqrt(2 L)"), strict=True):
    ax.set(title=title, xlabel="after block", ylim=(0, None))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="upper left")
axes[0].set_ylabel("standard deviation of the stream")
plt.show()

# %% [markdown]
# Left, the deeper the model, the larger the stream it ends with. Right, all four end at the same size: depth no longer
# changes the scale that the last norm and the head see, and one learning rate fits models of different depth better.
#
# And why 0.02? Here are the numbers that go into GELU in the first block (blue: how often each occurs), and GELU itself
# (orange), for weights that are ten times smaller, right, and ten times larger.

# %% alt="Inputs over the curve of GELU: all at its straight middle, around its bend, or far out at both sides."
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), sharey=True, layout="constrained")
line = torch.linspace(-6, 6, 200)
for ax, factor in zip(axes, (0.1, 1, 10), strict=True):
    model = init_weights(GPT(replace(wide, n_layer=1)), seed=0)
    seen: list[Tensor] = []
    model.h[0].mlp.c_fc.register_forward_hook(lambda *args, seen=seen: seen.append(args[-1]))
    with torch.no_grad():
        for p in model.h[0].parameters():
            if p.dim() == 2:
                p.mul_(factor)
        model(torch.arange(64)[None])
    counts = torch.histc(seen[0], bins=121, min=-6, max=6)
    ax.fill_between(torch.linspace(-6, 6, 121), 4 * counts / counts.max(), color=COLORS[4], alpha=0.5, lw=0)
    ax.plot(line, torch.nn.functional.gelu(line, approximate="tanh"), color=COLORS[1])
    ax.set(title=f"weights of {factor * STD:g}: std {seen[0].std():.2g}", xlabel="input of GELU", yticks=[])
    ax.spines[["top", "right", "left"]].set_visible(False)
plt.show()

# %% [markdown]
# On the left all inputs lie where GELU is almost a straight line, and a network of straight lines is one straight line.
# On the right most lie where it is flat, and no gradient comes through, or where it is the identity. In the middle they
# use the bend.
#
# > **Exercise 1.** With which standard deviation does GPT-2 draw the weights of a `c_proj`, in a model of `n_layer`
# > blocks?

# %%


def residual_std(n_layer: int) -> float:
    """Standard deviation of the projections onto the residual stream at the start."""
    ...


check("residual_std", residual_std)

# %% [markdown]
# ## 3. AdamW, by hand
#
# Plain gradient descent moves every weight by $\eta\, g$: much where the gradient is large, nothing where it is small.
# In a transformer gradients of different weights differ by factors of thousands, so no single $\eta$ fits. Adam keeps
# two running averages for each weight, one of its gradients and one of their squares, and moves by their ratio:
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2 \qquad
#   w \leftarrow w - \eta\, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$
#
# Both averages begin at zero and are too small at first; after $t$ steps a share $1 - \beta^t$ of the weight has been
# given out, so dividing by it makes them fair again. Here it is in Python, on a real model's gradients, in double
# precision, beside the optimizer that groundup trains with (without weight decay for now).

# %%
optim = OptimConfig(lr=1e-3, beta1=0.9, beta2=0.95, weight_decay=0.0)
EPS = 1e-8


def adam_step(w: Tensor, g: Tensor, m: Tensor, v: Tensor, t: int) -> None:
    """One step of Adam (Kingma & Ba 2015), in place; t counts from 1."""
    m.mul_(optim.beta1).add_((1 - optim.beta1) * g)
    v.mul_(optim.beta2).add_((1 - optim.beta2) * g**2)
    w.sub_(optim.lr * (m / (1 - optim.beta1**t)) / ((v / (1 - optim.beta2**t)).sqrt() + EPS))


def double_model() -> GPT:
    """The small model in double precision, always from the same start."""
    return init_weights(Modern(small), seed=0).double()


library = double_model()
(optimizer,) = build_optimizers(library, optim, torch.device("cpu"))
by_hand = double_model()
averages = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in by_hand.named_parameters()}
for t in range(1, 6):
    for model in (library, by_hand):
        model.zero_grad()
        (LossModule(model)(idx, targets) / targets.numel()).backward()
    optimizer.step()
    with torch.no_grad():
        for name, p in by_hand.named_parameters():
            adam_step(p, p.grad, *averages[name], t)
    difference = max(
        (p - q).abs().max().item() for p, q in zip(library.parameters(), by_hand.parameters(), strict=True)
    )
    print(f"step {t}: largest difference of any weight {difference:.1e}")
assert difference < 1e-12

# %% [markdown]
# Look at the very first step: $m / (1 - \beta_1) = g$ and $\sqrt{v / (1 - \beta_2)} = |g|$, so each weight moves by
# $\eta\, g / |g| = \pm\eta$, however small its gradient. That is Adam's strength, and the reason for warmup below.

# %%
start, moved = double_model(), double_model()
(optimizer,) = build_optimizers(moved, optim, torch.device("cpu"))
(LossModule(moved)(idx, targets) / targets.numel()).backward()
optimizer.step()
for name in ("h.0.attn.c_attn.weight", "h.1.mlp.c_proj.weight", "ln_f.weight"):
    before, after = start.get_parameter(name), moved.get_parameter(name)
    grad, step = after.grad.abs(), (after - before).abs()
    print(f"{name:22s} median gradient {grad.median():.1e}   median step {step.median():.6f}   (lr = {optim.lr})")

# %% [markdown]
# **The W in AdamW.** Weight decay pulls weights to zero, a preference for simple functions. Adding $\lambda w$ to the
# gradient (as one does for plain gradient descent) would send it through the ratio above, where its size is divided
# away again. AdamW (Loshchilov & Hutter 2019) keeps it out: it shrinks the weight directly, by the factor
# $1 - \eta\lambda$, and then makes Adam's step with the gradient alone. And it shrinks only what should be small:
# matrices, not gains and biases.

# %%
decaying = build_optimizers(
    Modern(replace(small, position="learned")), OptimConfig(weight_decay=0.1), torch.device("cpu")
)
for group in decaying[0].param_groups:
    kinds = sorted({p.dim() for p in group["params"]})
    print(f"weight_decay {group['weight_decay']}: {len(group['params'])} tensors with {kinds} dimensions")

# %% [markdown]
# > **Exercise 2.** Write AdamW for one tensor. Return the new weight and the two new averages; the arguments stay as
# > they are. `t` counts steps from 1. Your function will be compared with `torch.optim.AdamW` over several steps and
# > with groundup's optimizer on a whole model.

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
    ...


check("adamw_step", adamw_step)

# %% [markdown]
# ## 4. The learning rate over time
#
# The first steps are the least trustworthy: the averages rest on a handful of gradients, and yet every weight moves by
# the full $\eta$. So the rate grows from almost nothing over the first steps (warmup). At the end, steps should shrink, so
# that the weights settle instead of jumping around the minimum: half a cosine does that, down to a tenth of the peak. One
# pure function of the step holds it all, and the same function drives every run.

# %% alt="Three learning rates: a straight line up to 6e-4, then half a cosine down to a tenth of it, or to 0."
recipe = RECIPES["gpt2-fineweb"]
fig, ax = curve_axes("step", "learning rate", size=(8, 3))
steps = range(0, recipe.max_steps, 20)
for (warmup_steps, final), color in zip(((715, 0.1), (3000, 0.1), (715, 0.0)), COLORS, strict=False):
    scale = partial(cosine_scale, warmup_steps=warmup_steps, max_steps=recipe.max_steps, final=final)
    label = f"{warmup_steps} steps of warmup, down to {final:g} of the peak"
    ax.plot(steps, [recipe.optim.lr * scale(step) for step in steps], color=color, label=label)
ax.set_title("GPT-2 124M on FineWeb-Edu (blue: groundup's recipe)")
ax.ticklabel_format(axis="y", scilimits=(0, 0))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# Step 0 already moves: with `warmup_steps` of 100 it has 1/100 of the peak, and step 99 has all of it.
#
# > **Exercise 3.** Write that function: linear warmup, then half a cosine from 1 down to `final`, which is reached at
# > `max_steps` and kept.

# %%


def lr_scale(step: int, warmup_steps: int, max_steps: int, final: float) -> float:
    """Share of the peak learning rate at a step; steps count from 0."""
    ...


check("lr_scale", lr_scale)

# %% [markdown]
# ## 5. Gradient accumulation is a large batch
#
# GPT-2 learns from half a million tokens a step. A laptop, or one GPU, holds a few thousand. But the gradient of a sum is
# the sum of the gradients: compute it piece by piece, let `.grad` add them up, and take the step at the end. groundup's
# `LossModule` returns the *sum* over tokens, which makes this exact: each piece is divided by the tokens of the whole
# step. We prove it in double precision, where rounding is about $10^{-16}$.

# %%


def gradient(pieces: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The whole gradient as one vector, accumulated over the pieces of a batch."""
    model = double_model()
    loss_module = LossModule(model)
    n_tokens = sum(int((y != IGNORE).sum()) for _, y in pieces)
    for x, y in pieces:
        (loss_module(x, y) / n_tokens).backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


whole = gradient([(idx, targets)])
for size in (4, 2, 1):
    pieces = list(zip(idx.split(size), targets.split(size), strict=True))
    difference = (gradient(pieces) - whole).abs().max()
    print(
        f"{len(pieces)} micro-batches of {size}: largest difference {difference:.1e} (largest entry {whole.max():.2f})"
    )
    assert difference <= 1e-12

# %% [markdown]
# **How it goes wrong.** If each piece takes the mean over *its own* tokens and the means are averaged, the result is the
# same only while all pieces have as many tokens. With padding, or with documents of different length, they do not, and
# every token of a short piece counts more. Libraries have shipped that mistake for years. Here, three quarters of the
# targets of the second half do not count (`IGNORE`).

# %%
padded = targets.clone()
padded[4:, 16:] = IGNORE
exact = gradient([(idx, padded)])
halves = [gradient([(idx[rows], padded[rows])]) for rows in (slice(0, 4), slice(4, 8))]
mean_of_means = (halves[0] + halves[1]) / 2
relative = (mean_of_means - exact).norm() / exact.norm()
print(f"the mean of means misses the gradient of the batch by {relative:.1%} of its length")

# %% [markdown]
# > **Exercise 4.** Accumulate: `loss_module(idx, targets)` is the summed loss of a piece; targets of `-100` do not count.
# > Leave in the parameters' `.grad` the gradient of the *mean* over all tokens that count, of all pieces. Pieces may
# > differ in size. The gradients are zero when your function is called.

# %%


def accumulate(loss_module: LossModule, pieces: list[tuple[Tensor, Tensor]]) -> None:
    """Fill .grad with the gradient of the mean loss over all pieces."""
    ...


check("accumulate", accumulate)

# %% [markdown]
# ## 6. Sixteen bits
#
# GPUs multiply 16-bit matrices many times faster than 32-bit ones. There are two ways to spend 16 bits, and each lacks
# something:

# %%
print(f"{'':10s}{'largest':>12s}{'smallest > 0':>15s}{'step after 1':>15s}")
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    facts = torch.finfo(dtype)
    least = facts.smallest_normal * facts.eps  # subnormal numbers reach below the smallest normal one
    print(f"{str(dtype).removeprefix('torch.'):10s}{facts.max:12.4g}{least:15.2g}{facts.eps:15.2g}")

# %%
print("fp16 ends at 65504:  65519 ->", torch.tensor(65519.0).half().item())
print("                     65520 ->", torch.tensor(65520.0).half().item())
print("               300 * 300   =", (torch.tensor(300.0).half() * 300).item())
print("bf16 goes on:  300 * 300   =", (torch.tensor(300.0).bfloat16() * 300).item(), "  but that should be 90000:")
print("8 binary digits:  256 + 1   =", (torch.tensor(256.0).bfloat16() + 1).item())
weight = torch.tensor(1.0).bfloat16()
for _ in range(1000):
    weight = weight - 1e-3
print("a bf16 weight of 1 after 1000 steps of -0.001:", weight.item())

# %% [markdown]
# The last line is why *mixed* precision is mixed: a small step on a bf16 weight rounds away, a thousand times in a row.
# Weights, gradients, optimizer state and the loss stay in float32; only the inputs of matrix products are narrowed
# (`groundup.runtime.precision` is this table as code).
#
# **What vanishes in fp16.** With half a million tokens a step, the loss of each token is divided by 524,288 before the
# backward pass begins. The gradient of a logit is $(p - \text{target})/524288$, and $p$ is small for most tokens. We take
# these gradients from our model and look at them in fp16, times a scale.

# %% alt="Most gradients lie below what fp16 can hold; a loss scale from 2 to the 8 to 2 to the 34 saves all of them."
model = init_weights(Modern(small), seed=0)
with torch.no_grad():
    model.wte.weight.mul_(5)  # give it opinions: logits spread out as those of a model that has learned a little
logits = model(idx).detach().requires_grad_()
loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
(loss / recipe.tokens_per_step).backward()
grads = logits.grad.flatten()

exponents = list(range(0, 41, 2))
lost = [((grads * 2.0**e).half() == 0).float().mean().item() for e in exponents]
infinite = [(grads * 2.0**e).half().isinf().float().mean().item() for e in exponents]

fine = [e for e, a, b in zip(exponents, lost, infinite, strict=True) if a == b == 0]

fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
axes[0].hist(grads.abs().log2().numpy(), bins=80, color=COLORS[0])
axes[0].axvline(-25, color=COLORS[1])
axes[0].text(-24.8, axes[0].get_ylim()[1] * 0.9, "left of this: 0 in fp16", color=COLORS[1])
axes[0].set(xlabel="log2 of the gradient's size", ylabel="logits", title="gradients of the logits")
axes[1].plot(exponents, lost, color=COLORS[0], label="lost: rounded to 0")
axes[1].plot(exponents, infinite, color=COLORS[1], label="overflowed: inf")
axes[1].axvspan(fine[0], fine[-1], color=COLORS[2], alpha=0.15, lw=0, label="all survive")
axes[1].set(xlabel="log2 of the loss scale", ylabel="share of the gradients", title="what a loss scale saves")
axes[1].legend(frameon=False, loc="center")
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
plt.show()
print(f"without scaling, fp16 loses {lost[0]:.1%} of these gradients")

# %% [markdown]
# Multiply the loss by a scale and by the chain rule all gradients are multiplied by it; divide them by it in float32
# before the step. Too small a scale loses gradients, too large a one makes infinities; between them (green) everything
# survives. `torch.amp.GradScaler` finds the place by itself: when something overflows it throws the step away and halves
# the scale; when all is well for a while, it doubles it.

# %%
weight = torch.nn.Parameter(torch.tensor(1.0))
sgd = torch.optim.SGD([weight], lr=0.01)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**18, growth_interval=4)
for step in range(1, 11):
    y = weight.half() * 3  # a product in fp16: its gradient is in fp16, too
    scaler.scale(y.float() / 2).backward()
    before = weight.item()
    scaler.step(sgd)  # divides the gradient by the scale, or skips the step
    scale = scaler.get_scale()
    scaler.update()
    sgd.zero_grad()
    what = "skipped: the gradient was infinite" if weight.item() == before else f"weight {weight.item():.3f}"
    print(f"step {step:2d}   scale {int(scale):7,d}   {what}")

# %% [markdown]
# bf16 has float32's range, so it needs none of this, and that is why it won wherever the hardware knows it. fp16 lives on
# in older GPUs (T4, V100), and groundup turns the scaler on there and nowhere else.
#
# > **Exercise 5.** The largest power of two by which all these gradients can be multiplied without one of them becoming
# > infinite in fp16. (Every scale that GradScaler tries is a power of two: multiplying by it only moves the exponent, and
# > no digit is lost.)

# %%


def largest_scale(grads: Tensor) -> float:
    """The largest 2**k for which no entry of grads * 2**k overflows in float16; grads are float32, not all zero."""
    ...


check("largest_scale", largest_scale)

# %% [markdown]
# ## 7. The loop
#
# All parts are there; `groundup.loop.trainer` puts them in order, in a function you can read in two minutes:
# learning rate, micro-steps, clipping, a check that everything is finite, update. Below it is built by hand from the very
# parts of this notebook. (`groundup train shakespeare` does the same, with checkpoints, evaluation and a report.)
#
# Two runs from the same weights on the same batches, with the peak learning rate of 0.02, too bold on purpose: one keeps it
# constant from the first step on, one warms up and comes down.

# %%
from groundup.distributed.signals import StopRequest
from groundup.loop.state import TrainState
from groundup.loop.trainer import Trainer
from groundup.runtime.precision import Precision

STEPS, MICRO_STEPS, CPU = 160, 2, torch.device("cpu")


def make_trainer(scale) -> Trainer:
    """groundup's loop around a fresh small model; scale: step -> share of the peak learning rate."""
    model = init_weights(Modern(small), seed=0)
    return Trainer(
        model=model,
        loss_module=LossModule(model),
        optimizers=build_optimizers(model, OptimConfig(lr=2e-2), CPU),
        batches=batches(),
        lr_scale=scale,
        precision=Precision("fp32", CPU, "a CPU"),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        device=CPU,
        max_steps=STEPS,
        grad_accum_steps=MICRO_STEPS,
        tokens_per_step=MICRO_STEPS * idx.numel(),
        grad_clip=1.0,
        state=TrainState(),
        stop=StopRequest(),
    )


schedules = {
    "constant": lambda step: 1.0,
    "warmup and cosine": partial(cosine_scale, warmup_steps=20, max_steps=STEPS, final=0.05),
}
curves, trainers = {}, {}
for label, scale in schedules.items():
    trainers[label] = make_trainer(scale)
    curves[label] = [trainers[label].train_step().loss.item() for _ in range(STEPS)]
    print(f"{label:18s} first loss {curves[label][0]:.3f}   mean of the last 20 {sum(curves[label][-20:]) / 20:.3f}")

# %% alt="A constant rate jumps to 5.9 and ends near 2.7; with warmup and cosine the loss falls below the bigram's 2.5."
bigram_loss = mean_loss(fit_bigram(corpus.split("train").read_all(), tokenizer.vocab_size))

fig, ax = curve_axes("step", "training loss, nats per character", size=(8, 3.6))
for (label, losses), color in zip(curves.items(), (COLORS[1], COLORS[0]), strict=True):
    ax.plot(range(1, STEPS + 1), losses, color=color, label=label)
for value, label, x in (
    (math.log(tokenizer.vocab_size), "ln V: knows nothing", STEPS - 35),
    (bigram_loss, "bigram: counts pairs", STEPS // 2),
):
    ax.axhline(value, color="#636363", lw=0.8, ls="--")
    ax.text(x, value + 0.04, label, color="#636363")
ax.set_title(f"{STEPS} steps of {MICRO_STEPS * idx.numel():,} characters")
ax.legend(frameon=False, loc="upper center")
plt.show()

# %% [markdown]
# Both begin at $\ln V$, as predicted. The constant rate throws the weights so far in its first steps that the loss
# jumps, and they never quite come back. The other run falls below the bigram, which knows nothing but the last character,
# and is not done yet. A few seconds of training are enough for something that looks like a play from a distance:

# %%
text = TextGenerator(trainers["warmup and cosine"].model, tokenizer)
print("ROMEO:" + text.generate("ROMEO:", max_new_tokens=200, seed=1)[0])

# %% [markdown]
# ## What to take along
#
# - Before the first step: is the loss $\ln V$?
# - Projections onto the residual stream start smaller by $\sqrt{2L}$, so that depth does not change its scale.
# - AdamW moves every weight by about the learning rate, whatever the size of its gradient; decay is applied beside it, to
#   matrices.
# - Sum the losses, divide by all tokens: then accumulation, and any number of GPUs, is the same as one large batch.
# - fp16 needs loss scaling, bf16 needs float32 weights beside it.
#
# Next: [`inference`](inference.ipynb), where the trained model speaks. Solutions of the exercises are in
# [`solutions/training`](solutions/training.ipynb); try both hints first.

# %%
folder.cleanup()
