"""Variants of recipes: what `groundup bench ablation` tries, by name. Each changes some values of a preset."""

from typing import Any

Variants = dict[str, dict[str, Any]]

PARTS: Variants = {
    "as it is": {},
    "no n-grams": {"model.ngram": 1},
    "n-grams of 2 to 4, 16,384 rows": {"model.ngram": 4, "model.ngram_rows": 16384},
    "n-grams of 2 to 8": {"model.ngram": 8},
    "smear": {"model.smear": True},
    "RMSNorm": {"model.norm": "rms"},
    "QK-norm": {"model.qk_norm": True},
    "ReLU squared": {"model.activation": "relu2"},
    "biases": {"model.bias": True},
    "zero projections": {"model.proj_init": "zero"},
    "untied head": {"model.tied_head": False},
    "soft cap 15": {"model.logit_softcap": 15.0},
    "stream scales": {"model.stream_scales": True},
    "value residual": {"model.value_residual": True},
    "half RoPE": {"model.rope_share": 0.5},
    "2 heads of keys": {"model.n_kv_head": 2},
    "learned positions": {"model.position": "learned"},
    "no momentum warmup": {"optim.muon_momentum_warmup": 0},
    "cautious decay": {"optim.cautious_decay": True},
    "cosine": {"optim.schedule": "cosine", "optim.min_lr_ratio": 0.1},
    "split cooldown": {"optim.cooldown": 0.4, "optim.muon_cooldown": 0.8},
    "average .99": {"optim.average": 0.99},
    "AdamW": {"optim.name": "adamw"},
}
"""One part at a time, on top of a preset that has none of them beside its n-grams."""

CHAR_10M: Variants = {
    "as it is": {},
    "decay x 4, noise .1": {"optim.muon_decay_ratio": 4.0, "replace_tokens": 0.1},
    "dropout .35, noise .1": {"model.dropout": 0.35, "replace_tokens": 0.1},
    "dropout .35, noise .1, scales, value residual": {
        "model.dropout": 0.35,
        "replace_tokens": 0.1,
        "model.stream_scales": True,
        "model.value_residual": True,
    },
}
"""Ways to learn a small text without learning it by heart."""

CPU_MINUTES: Variants = {
    "as it is": {},
    "scales": {"model.stream_scales": True},
    "scales, value residual": {"model.stream_scales": True, "model.value_residual": True},
    "scales, value residual, ReLU squared": {
        "model.stream_scales": True,
        "model.value_residual": True,
        "model.activation": "relu2",
    },
    "muon x 1.5": {"optim.muon_lr_ratio": 10.0},
    "lr x 1.5": {"optim.lr": 4.5e-3},
    "untied head": {"model.tied_head": False},
    "momentum .9": {"optim.muon_momentum": 0.9},
    "context 64": {"model.block_size": 64, "runtime.micro_batch_size": 16},
    "context 128": {"model.block_size": 128, "runtime.micro_batch_size": 8},
    "batch 8": {"tokens_per_step": 2048, "runtime.micro_batch_size": 8, "max_steps": 1000},
    "5 layers": {"model.n_layer": 5, "max_steps": 1440},
    "192 wide, 3 layers": {"model.n_layer": 3, "model.n_embd": 192, "model.n_head": 6, "max_steps": 1100},
}
"""What 0.8 million parameters learn in minutes: sizes and rates at about equal seconds on a CPU."""

SETS: dict[str, tuple[str, Variants]] = {
    "parts": ("shakespeare-modern", PARTS),
    "char-10m": ("char-10m", CHAR_10M),
    "cpu-minutes": ("shakespeare-modern", CPU_MINUTES),
}
"""By name: the preset, and its variants."""
