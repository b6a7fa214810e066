import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.gpt import GPT
from groundup.model.loss import LossModule
from groundup.planner.flops import flops_per_token, forward_flops_per_token

SHAPES = [
    GPTConfig(n_layer=3, n_head=4, n_embd=64, block_size=32, vocab_size=101),
    ModernConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=50, bias=False),
    GPTConfig(vocab_size=50257),
]


@pytest.mark.parametrize("config", SHAPES)
def test_equals_torchs_counter(config):
    """PyTorch counts the products of every kernel; the convention adds 2 (6 with backward) per gain and bias.

    On `meta` nothing is computed, so the published size costs nothing.
    """
    with torch.device("meta"):
        model = GPT(config)
        idx = torch.zeros(2, config.block_size, dtype=torch.long)
    vectors = sum(p.numel() for p in model.parameters() if p.dim() < 2)
    with FlopCounterMode(display=False) as forward:
        model(idx)
    with FlopCounterMode(display=False) as both:
        LossModule(model)(idx, idx).backward()
    T = config.block_size
    assert forward.get_total_flops() == idx.numel() * (forward_flops_per_token(config, T) - 2 * vectors)
    assert both.get_total_flops() == idx.numel() * (flops_per_token(config, T) - 6 * vectors)


def test_is_nanogpts_estimate():
    """nanoGPT's estimate_mfu: 6 N + 12 L H Q T, with N the parameters without the position table."""
    config = GPTConfig(vocab_size=50257)
    n, attention = 124_439_808 - 1024 * 768, 12 * 12 * 12 * 64 * 1024
    assert flops_per_token(config, 1024) == 6 * n + attention


def test_attention_grows_with_the_context_alone():
    config = GPTConfig(n_layer=3, n_head=4, n_embd=64, block_size=32, vocab_size=101)
    at = [forward_flops_per_token(config, T) for T in (0, 1, 10)]
    assert at[1] - at[0] == 4 * 3 * 64
    assert at[2] - at[0] == 10 * (at[1] - at[0])
