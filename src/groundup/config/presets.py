"""Models and whole runs, as values. A new one is derived from another by `dataclasses.replace`."""

from dataclasses import replace
from pathlib import Path

from groundup.config.data import DataConfig
from groundup.config.model import GPTConfig, ModernConfig
from groundup.config.train import CheckpointConfig, EvalConfig, OptimConfig, RuntimeConfig, TrainConfig

GPT2_VOCAB = 50257
GPT2 = GPTConfig(n_layer=12, n_head=12, n_embd=768, vocab_size=GPT2_VOCAB)

MODELS: dict[str, GPTConfig | ModernConfig] = {
    "nano": ModernConfig(n_layer=4, n_head=4, n_embd=128, block_size=128),
    "nano-wide": ModernConfig(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.2),
    "gpt2": GPT2,
    "gpt2-medium": GPTConfig(n_layer=24, n_head=16, n_embd=1024, vocab_size=GPT2_VOCAB),
    "gpt2-large": GPTConfig(n_layer=36, n_head=20, n_embd=1280, vocab_size=GPT2_VOCAB),
    "gpt2-xl": GPTConfig(n_layer=48, n_head=25, n_embd=1600, vocab_size=GPT2_VOCAB),
}
"""Sizes for a laptop, and the four published ones (124M, 350M, 774M, 1.5B parameters)."""

_SHAKESPEARE = TrainConfig(
    name="shakespeare",
    model=ModernConfig(n_layer=4, n_head=4, n_embd=128, block_size=128, ngram=4),
    data=DataConfig(source="shakespeare"),
    max_steps=1400,
    tokens_per_step=16 * 128,
    optim=OptimConfig(name="muon", lr=3e-3, warmup_steps=50),
    eval=EvalConfig(every=350, sample_every=200),
    checkpoint=CheckpointConfig(every=350, growth=True),
    runtime=RuntimeConfig(micro_batch_size=16, compile="off"),  # a first run begins at once
)

_TINY_SHAKESPEARE = TrainConfig(
    name="tiny-shakespeare",
    model=GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=64, bias=False),
    data=DataConfig(source="tiny-shakespeare"),
    max_steps=2000,
    tokens_per_step=12 * 64,
    optim=OptimConfig(lr=3e-3, min_lr_ratio=1 / 30, warmup_steps=100, beta2=0.99),
    runtime=RuntimeConfig(micro_batch_size=12),
)

_SHAKESPEARE_MODERN = replace(
    _TINY_SHAKESPEARE,
    name="shakespeare-modern",
    model=ModernConfig(n_layer=4, n_head=2, n_embd=128, block_size=256, bias=False, ngram=6, ngram_rows=131072),
    max_steps=975,  # one pass: what the table has seen once, it knows by heart
    tokens_per_step=4 * 256,
    optim=OptimConfig(
        name="muon",
        lr=3e-3,
        min_lr_ratio=0.02,
        warmup_steps=20,
        schedule="linear",
        cooldown=0.6,
        muon_momentum_warmup=300,
        beta2_half_life=30_000,
    ),
    eval=EvalConfig(every=325),
    runtime=RuntimeConfig(micro_batch_size=4),
)

_CHAR_10M = replace(
    _SHAKESPEARE_MODERN,
    name="char-10m",
    model=ModernConfig(n_layer=6, n_head=6, n_embd=384, block_size=256, bias=False, dropout=0.2),
    max_steps=3000,
    tokens_per_step=32 * 256,
    optim=replace(_SHAKESPEARE_MODERN.optim, warmup_steps=50, average=0.99),
    eval=EvalConfig(every=200),
    runtime=RuntimeConfig(micro_batch_size=32),
)

_GPT2_FINEWEB = TrainConfig(
    name="gpt2-fineweb",
    model=MODELS["gpt2"],
    data=DataConfig(source="shards", path=Path("data/fineweb-edu"), tokenizer="gpt2"),
    max_steps=19_073,
    tokens_per_step=524_288,
    optim=OptimConfig(lr=6e-4, warmup_steps=715),
    eval=EvalConfig(every=250, max_tokens=10_485_760, sample_every=1000),
    checkpoint=CheckpointConfig(every=1000),
    runtime=RuntimeConfig(micro_batch_size=16),
)

_SPEEDRUN = replace(
    _GPT2_FINEWEB,
    name="speedrun-124m",
    model=ModernConfig(
        n_layer=12,
        n_head=6,
        n_embd=768,
        vocab_size=GPT2_VOCAB,
        bias=False,
        rope_base=1024.0,
        rope_share=0.5,
        norm="rms",
        activation="relu2",
        qk_norm=True,
        stream_scales=True,
        tied_head=False,
        logit_softcap=15.0,
        proj_init="zero",
    ),
    max_steps=3250,
    optim=OptimConfig(
        name="muon",
        lr=4e-3,
        muon_lr_ratio=6.25,
        min_lr_ratio=0.0,
        warmup_steps=20,
        schedule="linear",
        cooldown=0.7,
        weight_decay=0.001,
        muon_decay_ratio=50.0,
        cautious_decay=True,
        muon_momentum_warmup=300,
        beta1=0.8,
    ),
)

RECIPES: dict[str, TrainConfig] = {
    "shakespeare": _SHAKESPEARE,
    "tiny-shakespeare": _TINY_SHAKESPEARE,
    "shakespeare-modern": _SHAKESPEARE_MODERN,
    "char-10m": _CHAR_10M,
    "gpt2-fineweb": _GPT2_FINEWEB,
    "speedrun-124m": _SPEEDRUN,
    # Learning rates of GPT-3's models of these sizes (Brown et al. 2020, table 2.1).
    "gpt2-medium-fineweb": replace(
        _GPT2_FINEWEB,
        name="gpt2-medium-fineweb",
        model=MODELS["gpt2-medium"],
        optim=replace(_GPT2_FINEWEB.optim, lr=3e-4),
        runtime=RuntimeConfig(micro_batch_size=8),
    ),
    "gpt2-large-fineweb": replace(
        _GPT2_FINEWEB,
        name="gpt2-large-fineweb",
        model=MODELS["gpt2-large"],
        optim=replace(_GPT2_FINEWEB.optim, lr=2.5e-4),
        runtime=RuntimeConfig(micro_batch_size=4),
    ),
    "gpt2-xl-fineweb": replace(
        _GPT2_FINEWEB,
        name="gpt2-xl-fineweb",
        model=MODELS["gpt2-xl"],
        optim=replace(_GPT2_FINEWEB.optim, lr=2e-4),
        runtime=RuntimeConfig(micro_batch_size=4),
    ),
}
"""shakespeare is the demo, with vectors for runs of two to four letters: better text from the same seconds
(docs/log.md); tiny-shakespeare is nanoGPT's published CPU setting with three times its learning rate (a loss of 1.78
instead of 1.91); shakespeare-modern and char-10m learn the same file by the modern page and Muon; speedrun-124m is the
modern page at GPT-2's size in 1.7 billion tokens; the others are GPT-2 on FineWeb-Edu with build-nanogpt's schedule."""
