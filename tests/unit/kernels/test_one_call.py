"""A block in one call each way computes what the page's block does in double precision, up to rounding of its type."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.model import GPTConfig, ModernConfig
from groundup.kernels.compiled import load_kernels
from groundup.model import modern
from groundup.model.gpt import Block
from groundup.model.rope import rope_angles

CALLS = getattr(load_kernels(lambda _: None), "one_call", {})
pytestmark = [
    pytest.mark.skipif(not CALLS, reason="needs a C++ compiler"),
    pytest.mark.parametrize("dtype", list(CALLS) or [torch.float32], ids=str),
]
BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 0.03}


def draw(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def new_block(n_head, width, *, bias=True, block_size=64, rotated=False):
    """A block of the page; gains are not 1 and biases not 0."""
    make, config = (modern.Block, ModernConfig) if rotated else (Block, GPTConfig)
    block = make(config(n_head=n_head, n_embd=width, block_size=block_size, vocab_size=3, bias=bias), layer=0)
    for seed, part in enumerate(block.parameters()):
        part.data = draw(*part.shape, seed=seed) * (part.shape[-1] ** -0.5 if part.ndim > 1 else 0.3)
        part.data += part.ndim == 1
    return block


def tensors_of(block):
    parts = (block.ln_1, block.attn.c_attn, block.attn.c_proj, block.ln_2, block.mlp.c_fc, block.mlp.c_proj)
    return [tensor for part in parts for tensor in (part.weight, part.bias)]


def angles(tokens, head, wide=torch.float32):
    return tuple(part.unsqueeze(-2) for part in rope_angles(torch.arange(tokens), head, 100.0, wide))


def ours(dtype, block, x, grad, n_head, dropout=0.0, rotation=None):
    tensors = tensors_of(block)
    x = x.clone().requires_grad_()
    y = CALLS[dtype](x, n_head, 1e-5, dropout, tensors, rotation)
    wanted = [x, *(tensor for tensor in tensors if tensor is not None and tensor.requires_grad)]
    return y.detach(), *torch.autograd.grad(y, wanted, grad)


def theirs(block, x, grad, rotation=None):
    block, x = block.double(), x.double().requires_grad_()
    y = block(x, x, rotation, None)[0] if rotation else block(x)
    result = (
        y.detach(),
        *torch.autograd.grad(y, [x, *(part for part in tensors_of(block) if part is not None)], grad.double()),
    )
    block.float()
    return result


def assert_near(some, others, dtype):
    for a, b in zip(some, others, strict=True):
        assert a.shape == b.shape
        assert (a - b).norm() <= BOUNDS[dtype] * b.norm()


@settings(max_examples=25, deadline=None)
@given(
    texts=st.integers(1, 3),
    tokens=st.sampled_from([1, 2, 15, 31, 32, 33, 64, 70, 130]),
    n_head=st.integers(1, 3),
    head=st.sampled_from([16, 32, 48]),
    bias=st.booleans(),
    rotated=st.booleans(),
)
def test_numbers_and_gradients_are_those_of_the_page(dtype, texts, tokens, n_head, head, bias, rotated):
    width = n_head * head
    x, grad = draw(2, texts, tokens, width, seed=99)
    block = new_block(n_head, width, bias=bias, block_size=tokens, rotated=rotated)
    narrow, wide = (angles(tokens, head, kind) if rotated else None for kind in (torch.float32, torch.float64))
    assert_near(ours(dtype, block, x, grad, n_head, rotation=narrow), theirs(block, x, grad, wide), dtype)


@pytest.mark.parametrize("tokens", [33, 70])
def test_weights_that_fill_the_caches(dtype, tokens):
    x, grad = draw(2, 1, tokens, 3 * 192, seed=4)
    block = new_block(3, 3 * 192, block_size=tokens)
    assert_near(ours(dtype, block, x, grad, 3), theirs(block, x, grad), dtype)


@pytest.mark.parametrize("tokens", [1023, 1024, 1025, 2500])
def test_sums_over_many_rows(dtype, tokens):
    x, grad = draw(2, 1, tokens, 48, seed=5)
    block = new_block(3, 48, block_size=tokens)
    assert_near(ours(dtype, block, x, grad, 3), theirs(block, x, grad), dtype)


def test_bits_do_not_depend_on_the_number_of_threads(dtype):
    x, grad = draw(2, 5, 70, 64, seed=7)
    block, told = new_block(2, 64), []
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            torch.manual_seed(0)
            told.append(ours(dtype, block, x, grad, 2, dropout=0.2, rotation=angles(70, 32)))
    finally:
        torch.set_num_threads(threads)
    assert all(a.equal(b) for some in told[1:] for a, b in zip(told[0], some, strict=True))


def test_dropout_drops_its_share_and_finds_the_same_numbers_on_the_way_back(dtype):
    """Where the MLP gives a bias alone, what the bias gets tells how often each number was kept."""
    block = new_block(2, 64)
    for part in (block.attn.c_proj, block.mlp.c_proj):
        part.weight.data.zero_(), part.bias.data.zero_()
    block.mlp.c_proj.bias.data.fill_(1)
    x = torch.zeros(20, 50, 64)
    torch.manual_seed(1)
    y, *grads = ours(dtype, block, x, torch.ones_like(x), 2, dropout=0.25)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(4 / 3).item()}
    assert 0.74 < y.bool().float().mean() < 0.76
    assert torch.allclose(grads[-1], y.sum((0, 1)), rtol=2e-2)  # 4/3 has 8 bits there


def test_what_is_frozen_gets_no_gradient(dtype):
    x, grad = draw(2, 2, 40, 64, seed=3)
    block = new_block(2, 64)
    everything = dict(zip(["x", *map(id, tensors_of(block))], ours(dtype, block, x, grad, 2)[1:], strict=True))
    for frozen in (block.attn.c_attn.weight, block.mlp.c_fc.weight, block.ln_2.bias, block.mlp.c_proj.bias):
        frozen.requires_grad_(False)
    left = [id(part) for part in tensors_of(block) if part.requires_grad]
    some = ours(dtype, block, x, grad, 2)[1:]
    assert len(some) == 1 + len(left) == 9
    assert all(a.equal(everything[name]) for a, name in zip(some, ["x", *left], strict=True))


def test_what_is_no_number_stays_none_and_stays_in_its_text(dtype):
    x = draw(3, 40, 64, seed=3)
    x[1, 5, 3] = torch.nan
    y, of_x, *_ = ours(dtype, new_block(2, 64), x, torch.ones_like(x), 2)
    for part in (y, of_x):
        assert part[[0, 2]].isfinite().all()
    assert y[1, 5:].isnan().all()


def test_weights_may_lie_elsewhere_on_the_way_back(dtype):
    """As those of which each rank has a share: they are gathered twice."""
    x, grad = draw(2, 2, 40, 64, seed=3)
    block = new_block(2, 64)
    tensors, (_, *expected) = tensors_of(block), ours(dtype, block, x, grad, 2)
    y = CALLS[dtype](x.requires_grad_(), 2, 1e-5, 0.0, tensors)
    for part in tensors:
        left, part.data = part.data, part.data.clone()
        left.fill_(torch.nan)
    got = torch.autograd.grad(y, [x, *tensors], grad)
    assert all(a.equal(b) for a, b in zip(got, expected, strict=True))
