from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.build import build_model
from groundup.planner.params import count_parameters, parameter_table

SWITCHES = {
    "smear": True,
    "ngram": 2,
    "norm": "rms",
    "n_inner": 24,
    "n_kv_head": 1,
    "value_residual": True,
    "stream_scales": True,
    "tied_head": False,
}
"""Those that add or take parameters."""
shapes = st.builds(
    lambda cls, n_head, head_dim, **rest: cls(n_head=n_head, n_embd=n_head * head_dim * 2, **rest),
    cls=st.sampled_from(
        [
            GPTConfig,
            ModernConfig,
            partial(ModernConfig, position="learned"),
            *(partial(ModernConfig, **{name: value}) for name, value in SWITCHES.items()),
            partial(ModernConfig, **SWITCHES),
        ]
    ),
    n_head=st.integers(1, 4),
    head_dim=st.integers(1, 8),
    n_layer=st.integers(1, 4),
    block_size=st.integers(1, 64),
    vocab_size=st.integers(1, 300),
    bias=st.booleans(),
)


@settings(max_examples=25)
@given(shapes)
def test_equals_the_model(config):
    with torch.device("meta"):
        model = build_model(config)
    assert count_parameters(config) == sum(p.numel() for p in model.parameters())


@settings(max_examples=10)
@given(shapes)
def test_every_part_equals_its_modules(config):
    with torch.device("meta"):
        model = build_model(config)
    parts = {
        "wte": "token embedding",
        "wpe": "position embedding",
        "ngrams": "n-gram embedding",
        "attn": "attention",
        "mlp": "MLP",
        "ln_": "norms",
        "scale": "scales",
        "smear": "scales",
        "unembed": "head",
    }
    counted = dict.fromkeys(parts.values(), 0)
    for name, parameter in model.named_parameters():
        (part,) = [parts[key] for key in parts if key in name]
        counted[part] += parameter.numel()
    assert parameter_table(config) == counted


def test_by_hand():
    """Radford et al.'s 124M: 50257 x 768 + 1024 x 768 + 12 x (12 x 768^2 + 13 x 768) + 2 x 768."""
    config = GPTConfig(vocab_size=50257)
    assert count_parameters(config) == 50257 * 768 + 1024 * 768 + 12 * (12 * 768**2 + 13 * 768) + 2 * 768
    assert count_parameters(config) == pytest.approx(124e6, rel=0.01)
