"""Dropout by counted numbers: what it drops is its share, follows the seeds, and is the same on the way back."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import needs
from groundup.config.model import GPTConfig, ModernConfig
from groundup.kernels.compiled import load_kernels
from groundup.kernels.dropout import CountedDropout
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.loss import lm_loss_sum
from groundup.model.swap import use_kernels

pytestmark = needs.compiler


def counted(p):
    return CountedDropout(p, load_kernels(lambda _: None)).train()


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mixed(x):
    """The 32-bit hash of attention.cpp, in numbers of 64 bits."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ x >> shift) * factor) & 0xFFFFFFFF
    return x ^ x >> 16


@pytest.mark.parametrize("shape", [(1, 1), (3, 5, 77), (2, 300, 96)])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_what_is_kept_is_counted(shape, p):
    torch.manual_seed(3)
    seed, other_seed = torch.randint(1 << 32, (2,)).tolist()
    x, width = draw(*shape), shape[-1]
    rows = mixed(mixed(torch.arange(x.numel() // width)) ^ seed)
    numbers = mixed(rows[:, None] ^ mixed(torch.arange(width) ^ other_seed)).view(shape)
    torch.manual_seed(3)
    y = counted(p)(x)
    torch.testing.assert_close(y, torch.where(numbers < round(p * 2**32), 0.0, x / (1 - p)))


def test_its_share_is_dropped_everywhere_and_nothing_follows_another():
    torch.manual_seed(0)
    layer = counted(0.3)
    first, second = ((layer(torch.ones(1000, 400)) == 0).float() for _ in range(2))
    assert first.mean().item() == pytest.approx(0.3, abs=0.003)  # of 400,000: four deviations
    for dim, n in ((0, 1000), (1, 400)):
        assert first.mean(dim).std().item() == pytest.approx((0.3 * 0.7 / n) ** 0.5, rel=0.15)
    pairs = [(first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])]
    for a, b in pairs:
        correlation = torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1]
        assert abs(correlation.item()) < 0.0065  # four deviations


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_has_the_same_factors_and_no_mask_is_kept(dtype):
    layer, kept = counted(0.4), []
    x, upstream = draw(6, 50, 32).to(dtype).requires_grad_(), draw(50, 6, 32, seed=1).to(dtype).transpose(0, 1)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = layer(x)
    assert not kept
    (grad,) = torch.autograd.grad(y, x, upstream)
    rtol = 1e-6 if dtype == torch.float32 else 2**-8
    for ours, of in ((y, x), (grad, upstream)):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), torch.where(y == 0, 0.0, of.float() / 0.6), rtol=rtol, atol=0)


def test_the_seeds_come_from_pytorchs_generator():
    layer, x = counted(0.5), torch.ones(40, 40)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), first)
    torch.manual_seed(2)  # as on another rank
    assert not torch.equal(layer(x), first)


def test_everything_else_is_left_to_pytorch():
    x, layer = draw(8, 32), counted(0.5)
    assert layer.eval()(x) is x
    layer.train()
    assert counted(0.0)(x) is x
    for same in (lambda: layer(x.double()), lambda: torch.compile(layer, backend="eager")(x)):
        torch.manual_seed(0)
        ours = same()
        torch.manual_seed(0)
        assert torch.equal(ours, F.dropout(x.to(ours.dtype), 0.5))


SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 24, "vocab_size": 31, "dropout": 0.3}


@pytest.mark.parametrize("config", [GPTConfig(**SHAPE), ModernConfig(**SHAPE)], ids=lambda config: config.kind)
def test_a_model_that_computes_its_blocks_again_drops_the_same(config):
    model = init_weights(build_model(config), seed=0).train()
    plain = [part for part in model.modules() if isinstance(part, nn.Dropout)]
    assert len(plain) == 1 + 2 * config.n_layer
    use_kernels(model, load_kernels(lambda _: None))
    assert not any(isinstance(part, nn.Dropout) for part in model.modules())
    again = copy.deepcopy(model)
    again.recompute = True
    idx, targets = torch.randint(31, (2, 3, 24), generator=torch.Generator().manual_seed(0))
    losses = []
    for each in (model, again):
        torch.manual_seed(5)
        losses.append(lm_loss_sum(each(idx), targets))
        losses[-1].backward()
    assert losses[0] == losses[1]
    for (name, a), b in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a.grad, b[1].grad), name


def test_a_model_that_does_not_train_drops_nothing():
    plain = init_weights(build_model(GPTConfig(**SHAPE)), seed=0).eval()
    swapped = copy.deepcopy(plain)
    use_kernels(swapped, load_kernels(lambda _: None))
    idx = torch.arange(24)[None]
    torch.testing.assert_close(swapped(idx), plain(idx))
