"""The kernels of attention give the values and gradients of PyTorch's function in double precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import needs
from groundup.config.model import GPTConfig, ModernConfig
from groundup.kernels.attention import CausalAttention
from groundup.kernels.compiled import load_kernels
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.loss import lm_loss_sum
from groundup.model.swap import use_kernels

pytestmark = needs.compiler


def attend():
    return CausalAttention(load_kernels(lambda _: None))


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_gradients(function, parts, grad):
    parts = [part.detach().requires_grad_() for part in parts]
    y = function(*parts, is_causal=True, enable_gqa=parts[0].shape != parts[1].shape)
    return y, *torch.autograd.grad(y, parts, grad)


def by_repeated_keys(q, k, v, *, is_causal, enable_gqa):
    """PyTorch's attention, without its own way to share keys."""
    k, v = (part.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for part in (k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def assert_as_exact_as_can_be(parts, grad, *, rtol, of_inputs=1e-6):
    """Beside PyTorch in float64. A gradient may be zero, so what goes into it counts, too."""
    ours = with_gradients(attend(), parts, grad)
    exact = with_gradients(by_repeated_keys, [part.double() for part in parts], grad.double())
    size = grad.float().norm() * max(1, *(part.float().abs().max() for part in parts))
    for a, b in zip(ours, exact, strict=True):
        assert a.dtype == parts[0].dtype
        assert (a.double() - b).norm() <= rtol * b.norm() + of_inputs * size


SIZES = {
    "texts": st.integers(1, 3),
    "groups": st.integers(1, 3),
    "heads": st.integers(1, 4),
    "tokens": st.integers(1, 130),
    "width": st.sampled_from([16, 32, 48, 80]),
}


@settings(max_examples=40)
@given(**SIZES, scale=st.sampled_from([0.1, 1.0, 8.0]))
def test_any_size(texts, groups, heads, tokens, width, scale):
    q, grad = draw(2, texts, groups * heads, tokens, width, seed=tokens)
    k, v = draw(2, texts, groups, tokens, width, seed=tokens + 1)
    assert_as_exact_as_can_be((scale * q, scale * k, v), grad, rtol=1e-5)


@settings(max_examples=40)
@given(**SIZES)
def test_any_size_in_bfloat16(texts, groups, heads, tokens, width):
    q, grad = draw(2, texts, groups * heads, tokens, width, seed=tokens).bfloat16()
    k, v = draw(2, texts, groups, tokens, width, seed=tokens + 1).bfloat16()
    assert_as_exact_as_can_be((q, k, v), grad, rtol=5e-3, of_inputs=5e-4)  # y, from which scores get theirs, is rounded


def test_heads_side_by_side_in_one_tensor_are_read_where_they_lie():
    qkv, grad = draw(2, 70, 3, 4, 32), draw(2, 70, 4, 32, seed=1).transpose(1, 2)
    assert_as_exact_as_can_be([qkv[:, :, i].transpose(1, 2) for i in range(3)], grad, rtol=1e-5)
    k, v = (qkv[:, :, i, ::2].transpose(1, 2) for i in (1, 2))  # two heads of queries share each
    assert_as_exact_as_can_be((qkv[:, :, 0].transpose(1, 2), k, v), grad, rtol=1e-5)
    spread = draw(2, 4, 70, 32, 2)[..., 0]  # its numbers lie apart
    assert_as_exact_as_can_be((spread, spread, spread), torch.ones(1, 1, 1, 1).expand(2, 4, 70, 32), rtol=1e-5)


@pytest.mark.parametrize("groups", [4, 1])
def test_bfloat16_is_as_exact_as_pytorch(groups):
    (q, grad), (k, v) = draw(2, 2, 4, 100, 64).bfloat16(), draw(2, 2, groups, 100, 64, seed=1).bfloat16()
    assert_as_exact_as_can_be((q, k, v), grad, rtol=5e-3)
    arguments = {"is_causal": True, "enable_gqa": groups < 4}
    ours, theirs = (f(q, k, v, **arguments).double() for f in (attend(), F.scaled_dot_product_attention))
    exact = F.scaled_dot_product_attention(*(part.double() for part in (q, k, v)), **arguments)
    assert (ours - exact).norm() < 1.1 * (theirs - exact).norm()


def test_under_autocast_it_computes_in_bfloat16_as_pytorch_does():
    (q, k, v), function = draw(3, 1, 2, 40, 32), attend()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = function(q, k, v, is_causal=True)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), F.scaled_dot_product_attention(q, k, v, is_causal=True), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_is_not_hidden(dtype):
    q, k, v = draw(3, 1, 1, 20, 16).to(dtype)
    q[0, 0, 7, 3] = torch.nan
    y = attend()(q, k, v, is_causal=True)
    assert y[0, 0, 7].isnan().all()
    assert y[0, 0, :7].isfinite().all()


def weights_after_dropout(q, k, dropout_p, seed):
    """What attention multiplies values with, seen by values that are rows of a unit matrix; and the same without it."""
    T, width = q.shape[-2:]
    function, unit = attend(), torch.eye(-(-T // width) * width)[:T].expand(*q.shape[:2], T, -1)
    parts = []
    for values in unit.split(width, dim=-1):
        torch.manual_seed(seed)
        parts.append(function(q, k, values.contiguous(), dropout_p=dropout_p, is_causal=True))
    hidden = ~torch.ones(T, T, dtype=torch.bool).tril()
    whole = (q @ k.mT / width**0.5).masked_fill(hidden, -torch.inf).softmax(-1)
    return torch.cat(parts, -1)[..., :T], whole


def test_dropout_drops_its_share_of_the_weights_and_scales_the_others():
    q, k = draw(2, 6, 2, 150, 32)
    seen = torch.ones(150, 150).tril().bool()
    shown, whole = weights_after_dropout(q, k, 0.3, seed=5)
    ratios = (shown / whole)[..., seen]
    kept = ratios > 0.5
    torch.testing.assert_close(ratios[kept], torch.full_like(ratios[kept], 1 / 0.7), rtol=1e-4, atol=0)
    assert not ratios[~kept].any()
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.005)  # of 136,000: four deviations
    shares = torch.stack([mask.tril()[100:].sum(-1) / torch.arange(101, 151) for mask in (shown > 0).flatten(0, 1)])
    assert shares.std().item() == pytest.approx((0.3 * 0.7 / 125) ** 0.5, rel=0.1)  # rows do not follow one another
    rows = (shown[..., 100:, :100] > 0).flatten(0, 2)[::2].float()
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().mean().item() == pytest.approx(
        (2 / torch.pi / 100) ** 0.5, rel=0.1
    )
    assert not torch.equal(shown, weights_after_dropout(q, k, 0.3, seed=6)[0])


@pytest.mark.parametrize(("groups", "dtype"), [(4, torch.float32), (2, torch.float32), (2, torch.bfloat16)])
def test_the_gradient_under_dropout_is_that_of_the_weights_that_were_kept(groups, dtype):
    (q, grad), (k, v) = draw(2, 2, 4, 110, 32).to(dtype), draw(2, 2, groups, 110, 32, seed=1).to(dtype)
    shown, whole = weights_after_dropout(q.float(), k.repeat_interleave(4 // groups, dim=1).float(), 0.4, seed=2)
    factors = torch.where(shown > 0, 1 / 0.6, 0.0).double()
    parts = [part.double().requires_grad_() for part in (q, k, v)]
    keys, values = (part.repeat_interleave(4 // groups, dim=1) for part in parts[1:])
    scores = (parts[0] @ keys.mT / 32**0.5).masked_fill(whole == 0, -torch.inf)
    y = (scores.softmax(-1) * factors) @ values
    exact = y, *torch.autograd.grad(y, parts, grad.double())
    function = attend()
    torch.manual_seed(2)
    ours = with_gradients(lambda *parts, **rest: function(*parts, dropout_p=0.4, **rest), (q, k, v), grad)
    for a, b in zip(ours, exact, strict=True):
        assert (a.double() - b).norm() <= (1e-5 if dtype == torch.float32 else 5e-3) * b.norm()


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [((1, 2, 9, 20), {"dropout_p": 0.5}), ((1, 2, 9, 16), {"is_causal": False})],
    ids=["a width that fills no vector", "not causal"],
)
def test_everything_else_is_left_to_pytorch(shape, arguments):
    q, k, v = draw(3, *shape)
    told = []
    for function in (attend(), F.scaled_dot_product_attention):
        torch.manual_seed(0)
        told.append(function(q, k, v, **{"is_causal": True, **arguments}))
    assert torch.equal(*told)


@pytest.mark.parametrize(("groups", "shared"), [(2, False), (3, True)], ids=["not asked for", "of no whole group"])
def test_keys_that_cannot_be_shared_are_refused_as_pytorch_refuses_them(groups, shared):
    q, k, v = draw(1, 4, 16, 16), draw(1, groups, 16, 16), draw(1, groups, 16, 16)
    for function in (attend(), F.scaled_dot_product_attention):
        with pytest.raises(RuntimeError):
            function(q, k, v, is_causal=True, enable_gqa=shared)


def test_shared_keys_are_not_repeated_in_memory():
    q, k, v = draw(1, 8, 64, 32), draw(1, 2, 64, 32).requires_grad_(), draw(1, 2, 64, 32)
    kept, function = [], attend()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        function(q, k, v, is_causal=True, enable_gqa=True)
    assert {k.data_ptr(), v.data_ptr()} <= {tensor.data_ptr() for tensor in kept}
    log_sums = 4 * 8 * 64
    assert sum(tensor.nbytes for tensor in kept) == 2 * q.nbytes + 2 * k.nbytes + log_sums  # q and y, k and v


SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 60, "vocab_size": 31}


@pytest.mark.parametrize(
    "config",
    [
        GPTConfig(**SHAPE),
        ModernConfig(**SHAPE, position="rope", qk_norm=True, value_residual=True),
        ModernConfig(**SHAPE, position="rope", n_kv_head=1, value_residual=True),
    ],
    ids=["gpt", "modern", "shared keys"],
)
def test_a_model_with_kernels_learns_what_one_without_learns(config):
    model = init_weights(build_model(config), seed=0)
    swapped = copy.deepcopy(model)
    use_kernels(swapped, load_kernels(lambda _: None))
    assert isinstance(swapped.blocks[1].attn.attend, CausalAttention)
    idx, targets = torch.randint(31, (2, 3, 60), generator=torch.Generator().manual_seed(0))
    for each in (model, swapped):
        lm_loss_sum(each(idx), targets).backward()
    for (name, a), b in zip(model.named_parameters(), swapped.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4, msg=name)
