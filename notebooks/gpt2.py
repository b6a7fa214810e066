# %% [markdown]
# # 6. GPT-2: the published models
#
# OpenAI published four GPT-2s in 2019. Their code is ours up to the spelling, so their weights run in `groundup.model`,
# and everything of the notebooks before applies to them. Here we
#
# 1. put the four sizes on paper: parameters, memory, operations;
# 2. load published weights, where they are on this machine;
# 3. look at names: the one table that connects our parameters with Hugging Face's;
# 4. fine-tune: all weights, and a low-rank change (LoRA);
# 5. take HellaSwag apart, down to the log-probabilities of single endings.

# %%
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from torch import Tensor

from groundup.checkpoint.model_folder import load_model, load_tensors
from groundup.config.data import DataConfig
from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig
from groundup.config.presets import MODELS
from groundup.config.train import EvalConfig, LoRAConfig, OptimConfig, RuntimeConfig, TrainConfig
from groundup.data.loader import eval_batches
from groundup.evaluation.benchmarks import measure_choices
from groundup.evaluation.examples import read_choices
from groundup.evaluation.loss import evaluate_loss
from groundup.evaluation.scoring import log_likelihoods
from groundup.export.export_model import export_model
from groundup.generation.text import TextGenerator
from groundup.inspection.plots import COLORS, curve_axes
from groundup.interop.import_model import import_model
from groundup.interop.names import names
from groundup.learn.exercises import exercises
from groundup.model.gpt import GPT
from groundup.model.lora import add_lora
from groundup.model.loss import LossModule
from groundup.planner.flops import flops_per_token
from groundup.planner.hardware import peak_flops_of
from groundup.planner.memory import Arithmetic, training_memory
from groundup.planner.params import count_parameters, parameter_table
from groundup.prepare.corpus import open_corpus
from groundup.records.metrics import read_metrics
from groundup.training.run import train

check = exercises("gpt2")
SIZES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")

# %% [markdown]
# ## 1. Four sizes on paper
#
# The planner computes all of this from the shape alone; no model is built. The time is that of one A100 at 40% of its
# peak, for the 10 billion tokens of groundup's recipe.

# %%
TOKENS, SHARE = 10e9, 0.4
peak = peak_flops_of("NVIDIA A100-SXM4-80GB", "bf16")
print(f"{'':12s}{'layers':>7s}{'heads':>6s}{'width':>6s}{'parameters':>14s}", end="")
print(f"{'FLOPs/token':>12s}{'A100 days':>10s}{'16-bit file':>12s}")
for name in SIZES:
    shape = MODELS[name]
    n, flops = count_parameters(shape), flops_per_token(shape, shape.block_size)
    days = flops * TOKENS / (SHARE * peak) / 86_400
    print(f"{name:12s}{shape.n_layer:7d}{shape.n_head:6d}{shape.n_embd:6d}{n:14,d}", end="")
    print(f"{flops:12.2e}{days:10.1f}{2 * n / 1e9:9.2f} GB")

# %% [markdown]
# FLOPs/token counts forward and backward: $6N + 12 L C T$ (notebook 4 and `groundup.planner.flops` say why). Where the
# parameters sit, and what a training step of one sequence of 1024 tokens takes in memory with bf16 products:

# %% alt="Stacked bars of 4 sizes: MLPs and attention grow most, and AdamW's averages are the largest part in memory."
tables = [parameter_table(MODELS[name]) for name in SIZES]
memories = [training_memory(MODELS[name], Arithmetic(half=True), micro_batch_size=1) for name in SIZES]
parts = {
    "token embedding": [t["token embedding"] for t in tables],
    "attention": [t["attention"] for t in tables],
    "MLP": [t["MLP"] for t in tables],
    "positions and norms": [t["position embedding"] + t["norms"] for t in tables],
}
uses = {
    "weights": [m.weights for m in memories],
    "gradients": [m.gradients for m in memories],
    "AdamW's averages": [m.optimizer for m in memories],
    "activations and logits": [m.activations + m.logits for m in memories],
}
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for ax, stacks, unit in zip(axes, (parts, uses), (1e6, 1e9), strict=True):
    bottom = [0.0] * len(SIZES)
    for (label, values), color in zip(stacks.items(), COLORS, strict=False):
        heights = [value / unit for value in values]
        ax.bar(SIZES, heights, bottom=bottom, label=label, color=color)
        bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set(ylabel="millions of parameters", title="what is learned")
axes[1].set(ylabel="GB", title="a training step, one sequence")
plt.show()
for name, table in zip(SIZES, tables, strict=True):
    shares = ", ".join(f"{part} {count / sum(table.values()):.0%}" for part, count in table.items() if count)
    print(f"{name:12s} {shares}")

# %% [markdown]
# In the smallest model almost a third is vocabulary; in the largest one in twenty. A block has $12 C^2$ weights: $4 C^2$ in
# attention (queries, keys, values, output), $8 C^2$ in the MLP. Training in this way costs 16 bytes a parameter before the
# first activation: the weight, its gradient and two averages, in float32.
#
# > **Exercise 1.** Count all parameters of a GPT-2, biases and norms included. The head is the token embedding and adds
# > none. The published sizes must come out to the last digit.

# %%


def gpt2_parameters(n_layer: int, n_embd: int, vocab_size: int, block_size: int) -> int:
    """All parameters of a GPT-2."""
    ...


check("gpt2_parameters", gpt2_parameters)

# %% [markdown]
# ## 2. A model to work with
#
# `groundup import hf:gpt2` fetches the published 124M model into `models/gpt2`. If it is there (in this folder or one
# above), the cells below use it. If not, a **stand-in** of GPT-2's architecture is trained now, on the plays of
# Shakespeare, in a few seconds: 0.2 million parameters, one token a character. It shows every step, but its answers are
# those of a model 500 times smaller. The output says which of the two you look at.

# %%
folder = TemporaryDirectory()
work = Path(folder.name)
base = TrainConfig(
    name="stand-in",
    out_dir=work / "runs",
    max_steps=400,
    tokens_per_step=4 * 128,
    model=GPTConfig(n_layer=2, n_head=3, n_embd=96, block_size=128),
    data=DataConfig(source="shakespeare", cache_dir=work / "data"),
    optim=OptimConfig(name="muon", lr=1e-2, muon_lr_ratio=2.0, warmup_steps=20),
    eval=EvalConfig(every=400, max_tokens=16_384, sample_every=0),
    runtime=RuntimeConfig(micro_batch_size=4, compile="off", device="cpu", precision="fp32"),
)
train(base, resume=False, command="notebook", console=Console(quiet=True))
stand_in = load_model(base.run_dir)
print(f"stand-in: validation loss {stand_in.info['val_loss']:.2f} nats per character")

here = Path().resolve()
published = next((p for p in (up / "models" / "gpt2" for up in (here, *here.parents)) if p.is_dir()), None)
if published:
    loaded = load_model(published)
    print("GPT-2's published weights are here: the following is GPT-2 124M")
else:
    loaded = stand_in
    print("NO published weights on this machine: the following is the stand-in, NOT GPT-2")

# %%
speaker = TextGenerator(loaded.model, loaded.tokenizer)
cool = SamplingConfig(temperature=0.7, top_k=50)
for continuation in speaker.generate("My lord, ", max_new_tokens=60, sampling=cool, num_samples=2, seed=1):
    print("My lord,", repr(continuation))

# %% [markdown]
# ## 3. One table of names
#
# A model folder of Hugging Face holds `config.json`, `model.safetensors` and tokenizer files. Export the stand-in to that
# form and look inside the file:

# %%
export_model(base.run_dir, work / "stand-in-hf", "hf")
theirs = load_tensors(work / "stand-in-hf" / "model.safetensors")
ours = stand_in.model.state_dict()
print(f"{'ours':26s} {'shape':>10s}    {'Hugging Face':38s} {'shape':>10s}")
for name in names(n_layer=1):  # the table, for the first block only
    shapes = ["x".join(map(str, tensor.shape)) for tensor in (ours[name.ours], theirs[name.hf])]
    note = "  transposed" if name.transposed else ""
    print(f"{name.ours:26s} {shapes[0]:>10s}    {name.hf:38s} {shapes[1]:>10s}{note}")

# %% [markdown]
# Names are the same behind `transformer.`, because we took GPT-2's. Four matrices of each block are transposed: OpenAI wrote
# its layers for TensorFlow as $xW$ with $W$ of shape (in, out), Hugging Face kept that, and `nn.Linear` everywhere else
# stores (out, in). For the attention output (here 96 by 96) nothing but knowledge tells the two apart: a program that
# forgets it runs, and speaks nonsense. `groundup.interop.names` is that table, used in both directions, so we can go there
# and back and must have the same logits:

# %%
import_model(str(work / "stand-in-hf"), work / "back")
back = load_model(work / "back").model
ids = torch.tensor([stand_in.tokenizer.encode("To be, or not to be")])
with torch.no_grad():
    print("largest difference of any logit:", (back(ids) - stand_in.model(ids)).abs().max().item())

# %% [markdown]
# (The tests of groundup do the same with the `transformers` library itself: `tests/unit/interop`.)
#
# > **Exercise 2.** Turn one of our parameters into Hugging Face's: return its name there and the tensor in its layout.

# %%


def to_hugging_face(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """The name and the tensor as Hugging Face stores them."""
    ...


check("to_hugging_face", to_hugging_face)

# %% [markdown]
# ## 4. Fine-tuning
#
# Fine-tuning is training that does not begin at random weights: `--init-from` and a smaller learning rate, nothing more.
# We teach the stand-in (also where GPT-2 is there: 124M parameters would take minutes here) a very different language, the
# weather report, of which we have only 20 thousand characters.

# %%
dice = random.Random(0)
places = ("the north", "the south", "the west", "the hills", "the islands", "the coast", "the valleys", "the city")
skies = ("rain", "light rain", "heavy rain", "fog", "snow", "sun", "clouds and sun", "thunder in the evening")
winds = ("calm", "weak wind from the west", "strong wind from the north", "wind turning to the east", "gusts at night")
report = "".join(
    f"Weather for {dice.choice(places)}: {dice.choice(skies)}, {dice.choice(winds)}.\n" for _ in range(300)
)
(work / "weather.txt").write_text(report)
print(report[:180])

tuned = replace(
    base,
    name="all-weights",
    init_from=base.run_dir,
    max_steps=160,
    log_every=5,
    data=DataConfig(
        source="text",
        path=work / "weather.txt",
        tokenizer=str(base.run_dir / "model" / "tokenizer.json"),  # ids must mean what they meant
        cache_dir=work / "data",
    ),
    optim=OptimConfig(lr=1e-3, warmup_steps=5),
    eval=EvalConfig(every=40, sample_every=0),
)

# %% [markdown]
# **LoRA** (Hu et al. 2021) leaves every matrix $W$ as it is and learns a change of low rank beside it: $W + \frac{\alpha}{r}
# B A$, where $A$ has $r$ rows and $B$ has $r$ columns. $B$ begins at zero, so that the model begins as it was. Only $A$ and
# $B$ are trained; of AdamW's averages, the larger part of the memory, only theirs are needed. At the end the change is added
# to $W$, and the result is an ordinary GPT-2 again.

# %% alt="Both losses on the weather fall from 2.2: to 0.29 where all weights learn, to 0.44 with LoRA."
with_lora = replace(tuned, name="lora", lora=LoRAConfig(rank=8), optim=replace(tuned.optim, lr=1e-2))
for config in (tuned, with_lora):
    train(config, resume=False, command="notebook", console=Console(quiet=True))

plays = open_corpus(base.data).split("val")


def loss_on_plays(model: GPT) -> float:
    """Validation loss on the plays, the language the model came from."""
    batches = eval_batches(plays, block_size=128, batch_size=16, max_tokens=16_384)
    return evaluate_loss(LossModule(model), batches, device=torch.device("cpu"), bytes_per_token=1).loss


fig, ax = curve_axes("step", "validation loss on the weather, nats", size=(7, 3.2))
print(f"{'':12s} {'trained':>9s} {'weather':>9s} {'plays':>7s}")
before = loss_on_plays(stand_in.model)
for config, color in zip((tuned, with_lora), COLORS, strict=False):
    rows = [row for row in read_metrics(config.run_dir / "metrics.jsonl") if "val/loss" in row]
    ax.plot([row["step"] for row in rows], [row["val/loss"] for row in rows], "o-", color=color, label=config.name)
    learner = GPT(stand_in.config)
    if config.lora.rank:
        add_lora(learner, rank=config.lora.rank, alpha=config.lora.alpha, seed=0)
    n_trained = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    if config is tuned:
        print(f"{'before':12s} {'':9s} {rows[0]['val/loss']:9.2f} {before:7.2f}")
    after = loss_on_plays(load_model(config.run_dir).model)
    print(f"{config.name:12s} {n_trained:9,d} {rows[-1]['val/loss']:9.2f} {after:7.2f}")
ax.legend(frameon=False)
ax.set_ylim(bottom=0)
plt.show()

for config in (tuned, with_lora):
    weather = load_model(config.run_dir)
    cold = SamplingConfig(temperature=0.5)
    said = TextGenerator(weather.model, weather.tokenizer).generate("Weather for", max_new_tokens=120, sampling=cold)[0]
    print(f"{config.name} says: Weather for{said}\n")

# %% [markdown]
# Both learn the report in 160 steps, starting from a model that knows letters and words. Both forget: the loss on the plays
# (last column) goes up. What you do not train on, you lose, and fine-tuning in practice is the search for the few steps
# between learning the one and losing the other.
#
# This is no contest between the two: each has a learning rate of its own, picked among three for readable text.
#
# > **Exercise 3.** Merge a LoRA change: the weight of an ordinary layer that computes the same. `w` is (D, C), `a` is
# > (r, C), `b` is (D, r).

# %%


def merged(w: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The weight with its change added."""
    ...


check("merged", merged)

# %% [markdown]
# ## 5. HellaSwag, taken apart
#
# A benchmark of 10,042 questions (Zellers et al. 2019): a context, four endings, one of them real. No answer is ever
# *asked* of the model. Each ending is put behind the context, and the model says how likely it is: the sum of $\ln p$ over
# the tokens of the ending. The likeliest ending is the model's answer. Guessing is right a quarter of the time.
#
# Here are four examples of our own in HellaSwag's form, one JSON object a line:

# %%
own = [
    {
        "ctx": "The woman fills the kettle with water and puts it on the stove. She",
        "endings": [
            "waits until the water boils and makes tea.",
            "reads.",
            "paints the kettle green while it swims across the river.",
            "throws the stove out of the window and sings.",
        ],
        "label": 0,
    },
    {
        "ctx": "A boy kicks the ball over the fence into the garden of his neighbor. He",
        "endings": [
            "eats.",
            "rings the bell and asks to have it back.",
            "turns into a fence of many colors and falls asleep.",
            "boils the garden for an hour.",
        ],
        "label": 1,
    },
    {
        "ctx": "It begins to rain while two men are cutting the grass. They",
        "endings": [
            "cut the rain into small pieces and sell them.",
            "laugh at the moon.",
            "bring the machine into the shed and wait for the rain to stop.",
            "sit.",
        ],
        "label": 2,
    },
    {
        "ctx": "The dog hears a key in the door. It",
        "endings": ["writes a letter.", "flies.", "opens a bank account.", "jumps up and runs to the door."],
        "label": 3,
    },
]
(work / "own.jsonl").write_text("".join(json.dumps(example) + "\n" for example in own))
examples = read_choices(work / "own.jsonl", loaded.tokenizer)
scores = log_likelihoods(loaded.model, [example.question for example in examples])
print("scored by", "GPT-2 124M" if published else "the stand-in, which knows nothing of kettles")
for example, endings, results in zip(own, (e["endings"] for e in own), scores, strict=True):
    by_sum = max(range(4), key=lambda k: results[k].logprob)
    by_mean = max(range(4), key=lambda k: results[k].mean)
    print(f"\n{example['ctx']}")
    for k, (ending, result) in enumerate(zip(endings, results, strict=True)):
        marks = ("*" if k == example["label"] else " ") + ("S" if k == by_sum else " ") + ("M" if k == by_mean else " ")
        print(f"  {marks} {result.logprob:8.1f} / {result.n_tokens:2d} tokens = {result.mean:6.2f}   {ending}")
print("\n* the right one   S largest sum   M largest mean")

# %% [markdown]
# Look at the short endings. Each token multiplies the probability by something below one, so a sum over few tokens is
# nearly always larger: by the **sum** (`acc`) the shortest ending wins, whatever it says. The **mean** per token (`acc_norm`)
# takes length out of the comparison. This is why HellaSwag is reported as `acc_norm`.
#
# Four questions say nothing about a model. To see a score that means something, we need questions that the stand-in could
# know about. It has learned how words are spelled. So: lines of the plays it has not learned from, cut in the middle; the
# wrong endings are ends of three other lines, with their longest word spelled backwards.
#
# How hard a test is, its author decides: with the wrong endings left as they were, this model scored 0.26, near chance;
# with all of their words reversed, 0.995. One word is in between by choice. The score below shows the method; it is no
# measure of what the model can do.

# %%
lines = stand_in.tokenizer.decode(plays.read_all().tolist()).split("\n")
cuts = [line.split(" ") for line in lines if line.count(" ") >= 5]
dice.shuffle(cuts)
questions = []
for k in range(0, 800, 4):
    words, *others = cuts[k : k + 4]
    half = len(words) // 2
    endings = []
    for other in others:
        end = other[len(other) // 2 :]
        longest = max(end, key=len)
        endings.append(" ".join(word[::-1] if word == longest else word for word in end))
    label = dice.randrange(4)
    endings.insert(label, " ".join(words[half:]))
    questions.append({"ctx": " ".join(words[:half]), "endings": endings, "label": label})
(work / "verse.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
verse = read_choices(work / "verse.jsonl", stand_in.tokenizer)
result = measure_choices(stand_in.model, verse)
print(json.dumps(questions[0], indent=1))
print(f"\nstand-in: acc {result.acc:.3f}, acc_norm {result.acc_norm:.3f}, on {result.n} questions; guessing: 0.250")

# %% alt="Right and wrong endings by length: sums of ln p fall with the length, means do not; right ones lie higher."
results = log_likelihoods(stand_in.model, [example.question for example in verse])
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for right, color in ((False, COLORS[1]), (True, COLORS[0])):
    pairs = zip(verse, results, strict=True)
    chosen = [r for example, group in pairs for k, r in enumerate(group) if (k == example.label) == right]
    lengths = [r.n_tokens for r in chosen]
    style = {"marker": ".", "ls": "", "ms": 4, "alpha": 0.6, "color": color, "label": "right" if right else "wrong"}
    axes[0].plot(lengths, [r.logprob for r in chosen], **style)
    axes[1].plot(lengths, [r.mean for r in chosen], **style)
axes[0].set(title="sum of ln p: length decides", xlabel="tokens of the ending")
axes[1].set(title="mean of ln p: length hardly matters", xlabel="tokens of the ending")
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
axes[0].legend(frameon=False)
plt.show()

# %% [markdown]
# Left, the longer an ending the lower it lies, and the right ones (blue) lie only a little above the wrong ones of the same
# length: a short wrong one beats a long right one. Right, length is out of the way, and what is left of the difference is
# what `acc_norm` sees.
#
# How sure is such a score? Each of $n$ questions is right or wrong, so an accuracy $p$ has the standard error
# $\sqrt{p (1 - p) / n}$. With two hundred questions:

# %%
for what, n, acc in (
    ("the stand-in on our verse", result.n, result.acc_norm),
    ("GPT-2 124M on HellaSwag (build-nanogpt's figure)", 10_042, 0.2955),
):
    print(f"{what}: {acc:.3f} +- {math.sqrt(acc * (1 - acc) / n):.3f}")

# %% [markdown]
# A gain of one point on HellaSwag is two standard errors; on two hundred questions it is nothing at all. And 0.2955 is not
# far from guessing: GPT-2 124M is a small model, and HellaSwag was made to be hard for its kind.
#
# > **Exercise 4.** The answers of a model: given, for each ending, the list of $\ln p$ of its tokens, return two indices,
# > the ending with the largest sum and the one with the largest mean.

# %%


def answers(logprobs: list[list[float]]) -> tuple[int, int]:
    """The index of the answer by sum (acc) and by mean (acc_norm); of equal ones the first."""
    ...


check("answers", answers)

# %% [markdown]
# ## What to take along
#
# - A GPT-2 is $12 L C^2$ weights and a vocabulary; training costs 16 bytes a weight and $6N$ operations a token.
# - Loading weights is a question of names and of four transposed matrices; equal logits are the proof.
# - Fine-tuning is training from other weights; LoRA trains a low-rank change, and merges it.
# - HellaSwag compares likelihoods; without dividing by length, short endings win. Mind the standard error.
#
# With the published weights: `groundup import hf:gpt2`, then `groundup eval models/gpt2 --tasks hellaswag`. This was the last
# notebook. Solutions: [`solutions/gpt2`](solutions/gpt2.ipynb).

# %%
folder.cleanup()
