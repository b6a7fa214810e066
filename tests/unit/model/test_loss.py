"""The chunked head against autograd on whole logits."""

import contextlib
import itertools
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundup.config.data import IGNORE
from groundup.config.model import GPTConfig
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.kernels.head import CompiledHead, HeadKernels
from groundup.model import loss as loss_room
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule, head_loss_sum, lm_loss_sum
from groundup.model.swap import use_kernels, use_matmul
from groundup.planner import memory
from groundup.runtime.matmul import OneDNNHead, onednn_is_there

KERNELS = load_kernels(lambda _: None)
needs_kernels = pytest.mark.skipif(not isinstance(KERNELS, CompiledKernels), reason="needs a C++ compiler")


def both(hidden, weight, targets, upstream=1.0, **chunks):
    """(loss, gradients) of whole logits and of chunks."""
    results = []
    for function in (
        lambda h, w: lm_loss_sum(F.linear(h, w), targets),
        lambda h, w: head_loss_sum(h, w, targets, **chunks),
    ):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        loss = function(h, w)
        (loss * upstream).backward()
        results.append((loss.detach(), h.grad, w.grad))
    return results


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    T=st.integers(1, 9),
    C=st.integers(1, 6),
    V=st.integers(2, 20),
    chunk_rows=st.integers(1, 30),
    multiple=st.sampled_from([1, 4, 16]),
    ignored=st.floats(0, 1),
    spread=st.sampled_from([1.0, 100.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_whole_logits(batch, T, C, V, chunk_rows, multiple, ignored, spread, seed):
    g = torch.Generator().manual_seed(seed)
    hidden = spread * torch.randn(batch, T, C, generator=g, dtype=torch.float64)
    weight = torch.randn(V, C, generator=g, dtype=torch.float64)
    targets = torch.randint(V, (batch, T), generator=g)
    targets[torch.rand(batch, T, generator=g) < ignored] = IGNORE
    whole, chunked = both(hidden, weight, targets, upstream=0.37, chunk_rows=chunk_rows, multiple=multiple)
    for a, b in zip(whole, chunked, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-10)


def test_the_model_uses_it_and_keeps_its_gradients(monkeypatch):
    config = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=12, vocab_size=33)
    model = init_weights(GPT(config), seed=0).double()
    idx = torch.randint(33, (3, 12), generator=torch.Generator().manual_seed(1))
    targets = idx.roll(-1, dims=1)
    grads = []
    for chunk_bytes in (1 << 30, 7 * 4 * 33):  # all in one piece; 7 tokens at a time
        monkeypatch.setitem(memory.LOGITS_BYTES, "cpu", chunk_bytes)
        model.zero_grad()
        LossModule(model)(idx, targets).backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-11, atol=1e-11)


def test_autocast_is_as_close_as_whole_logits_are():
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(2, 20, 32, generator=g), torch.randn(50, 32, generator=g) / 6
    targets = torch.randint(50, (2, 20), generator=g)
    exact, _ = both(hidden, weight, targets, chunk_rows=7)
    with torch.autocast("cpu", torch.bfloat16):
        whole, chunked = both(hidden, weight, targets, chunk_rows=7)
    assert chunked[0].dtype == torch.float32
    for truth, a, b in zip(exact, whole, chunked, strict=True):
        assert b.dtype == truth.dtype
        assert (b - truth).norm() <= 1.5 * (a - truth).norm() + 1e-6
        assert (b - truth).norm() > 0  # it did compute in 16 bits


def test_works_without_gradients_and_for_one_of_two():
    hidden, weight = torch.randn(1, 10, 4), torch.randn(30, 4)
    targets = torch.randint(30, (1, 10))
    expected = lm_loss_sum(F.linear(hidden, weight), targets)
    with torch.no_grad():
        torch.testing.assert_close(head_loss_sum(hidden, weight, targets, chunk_rows=3), expected)
    h = hidden.requires_grad_()
    head_loss_sum(h, weight, targets, chunk_rows=3).backward()
    assert weight.grad is None
    assert h.grad.abs().sum() > 0


def test_nothing_counts():
    hidden = torch.randn(1, 10, 4, requires_grad=True)
    loss = head_loss_sum(hidden, torch.randn(30, 4), torch.full((1, 10), IGNORE), chunk_rows=3)
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any()


def test_an_overflow_is_not_hidden():
    hidden = torch.full((1, 10, 4), torch.inf)
    assert not head_loss_sum(hidden, torch.randn(30, 4), torch.zeros(1, 10, dtype=torch.long), chunk_rows=3).isfinite()


def test_chunks_are_even_and_stay_below_the_limit(monkeypatch):
    weight = torch.empty(100, 1)
    monkeypatch.setitem(memory.LOGITS_BYTES, "cpu", 1000 * 4 * 100)
    most = loss_room._chunk_rows(weight)
    assert [memory.even_rows(n, most) for n in (1001, 2048, 7, 999)] == [512, 768, 128, 1000]
    assert memory.logits_bytes("cuda", 80 << 30) == 80 << 25


def in_chunks(dtype, by, softcap, autocast=contextlib.nullcontext):
    """Loss and gradients of random numbers."""
    torch.manual_seed(0)
    targets = torch.randint(70, (2, 50))
    targets[0, 3] = IGNORE
    hidden, weight = (torch.randn(shape).to(dtype).requires_grad_() for shape in ((2, 50, 32), (70, 32)))
    with autocast():
        loss = head_loss_sum(hidden, weight, targets, softcap=softcap, chunk_rows=30, by=by)
    return [loss, *torch.autograd.grad(loss, (hidden, weight))]


@pytest.mark.parametrize("softcap", [0.0, 5.0])
@pytest.mark.parametrize("with_kernels", [False, True])
def test_the_products_of_onednn_and_the_kernels_give_the_same(softcap, with_kernels):
    if not onednn_is_there(torch.device("cpu")):
        pytest.skip("this PyTorch has no oneDNN")
    by = OneDNNHead(load_kernels(lambda _: None) if with_kernels else None)
    pairs = zip(in_chunks(torch.float64, None, softcap), in_chunks(torch.float32, by, softcap), strict=True)
    for exact, ours in pairs:
        torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


@needs_kernels
@pytest.mark.parametrize("softcap", [0.0, 5.0])
@pytest.mark.parametrize("onednn", [False, True])
def test_kernels_of_the_loss_give_the_same(softcap, onednn):
    by = CompiledHead(KERNELS, OneDNNHead(KERNELS) if onednn else None)
    exact = in_chunks(torch.float64, None, softcap)
    for numbers, theirs in zip(in_chunks(torch.float32, by, softcap), exact, strict=True):
        torch.testing.assert_close(numbers.double(), theirs, rtol=1e-4, atol=1e-4)
    autocast = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    plain = in_chunks(torch.float32, None, softcap, autocast)
    for numbers, others, theirs in zip(in_chunks(torch.float32, by, softcap, autocast), plain, exact, strict=True):
        assert numbers.dtype == others.dtype
        assert (numbers - theirs).norm() <= 1.05 * (others - theirs).norm() + 2e-4 * theirs.norm()


@needs_kernels
def test_a_model_with_kernels_has_the_same_loss_in_training_and_in_evaluation(monkeypatch, tiny_config):
    seen, right = [], HeadKernels.cross_entropy
    monkeypatch.setattr(loss_room, "_chunk_rows", lambda weight: 5)
    monkeypatch.setattr(HeadKernels, "cross_entropy", lambda *args, back: seen.append(back) or right(*args, back=back))
    plain, model = (init_weights(GPT(tiny_config), seed=0) for _ in range(2))
    use_kernels(model, KERNELS)
    idx = torch.randint(27, (2, 16))
    expected = LossModule(plain)(idx, idx)
    torch.testing.assert_close(LossModule(model)(idx, idx), expected)
    with torch.no_grad():
        torch.testing.assert_close(LossModule(model)(idx, idx), expected)
    assert seen == 7 * [True] + 7 * [False]


@needs_kernels
@settings(max_examples=40)
@given(rows=st.integers(1, 5), columns=st.integers(1, 300), scale=st.sampled_from([0.1, 1.0, 30.0]))
@example(3, 14, 30.0).via("a target of nearly 1, beside which a large logit must not be added")
def test_cross_entropy_of_any_size(rows, columns, scale):
    logits = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(columns))
    picked = torch.arange(rows)[:, None] * 7 % columns
    wide = logits.double().requires_grad_()
    exact = F.cross_entropy(wide, picked[:, 0], reduction="none")
    (slope,) = torch.autograd.grad(exact.sum(), wide)
    nats = KERNELS.head.cross_entropy(logits, picked, back=True)
    torch.testing.assert_close(nats[:, 0].double(), exact, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.double(), slope, rtol=1e-4, atol=1e-6)


@needs_kernels
def test_cross_entropy_hides_no_nan_and_refuses_a_column_that_is_not_there():
    logits = torch.tensor([[0.0, torch.nan], [0.0, -torch.inf], [torch.inf, 0.0]])
    nats = KERNELS.head.cross_entropy(logits, torch.zeros(3, 1, dtype=torch.long), back=True)[:, 0]
    assert nats.isnan().tolist() == [True, False, True]
    assert nats[1] == 0
    for column in (-1, 2):
        with pytest.raises(IndexError, match="columns are 0 to 1"):
            KERNELS.head.cross_entropy(logits, torch.full((3, 1), column), back=False)


def test_a_model_whose_head_is_onednns_uses_it_for_the_loss(monkeypatch, tiny_model):
    """Of the three products none is left to PyTorch's default, which is half as fast on some processors."""
    if not onednn_is_there(torch.device("cpu")):
        pytest.skip("this PyTorch has no oneDNN")
    use_matmul(tiny_model, "onednn")
    monkeypatch.setattr(loss_room, "_chunk_rows", lambda weight: 5)
    idx = torch.randint(27, (2, 16))
    seen = []
    monkeypatch.setattr(OneDNNHead, "forward", lambda self, x, weight: seen.append("linear") or x @ weight.T)
    monkeypatch.setattr(OneDNNHead, "weight_gradient", lambda self, grad, x: seen.append("gradient") or grad.T @ x)
    LossModule(tiny_model.train())(idx, idx).backward()
    assert seen == 7 * ["linear", "linear", "gradient"]  # 32 rows, 5 at a time


def test_compiles():
    """A head of GPT-2 and one with padding and a soft cap, in one graph: the compiler is slow to begin."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 5, 4), torch.randn(30, 4)
    targets = torch.randint(30, (2, 5))
    targets[0, 3] = IGNORE

    def loss_of(h, w):
        plain = head_loss_sum(h, w, targets, chunk_rows=6, multiple=1)
        return plain + head_loss_sum(h, w, targets, chunk_rows=6, multiple=8, softcap=3.0)

    grads = []
    for function in (loss_of, torch.compile(loss_of, backend="aot_eager", fullgraph=True)):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        function(h, w).backward()
        grads.append((h.grad, w.grad))
    torch.testing.assert_close(grads[0], grads[1])


def most_bytes(call):
    """The largest sum of what PyTorch allocates during a call and has not freed yet."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


def test_memory_of_gpt2s_head(monkeypatch):
    """Whole logits of GPT-2's vocabulary take 0.13 GB more than ours, at the least: 512 tokens and a quarter of the
    chunks that are taken for more."""
    monkeypatch.setitem(memory.LOGITS_BYTES, "cpu", memory.LOGITS_BYTES["cpu"] // 4)
    hidden, weight = torch.randn(1, 512, 32, requires_grad=True), torch.randn(50257, 32, requires_grad=True)
    targets = torch.randint(50257, (1, 512))
    assert most_bytes(lambda: head_loss_sum(hidden, weight, targets).backward()) < 0.15e9
    assert most_bytes(lambda: lm_loss_sum(F.linear(hidden, weight), targets).backward()) > 0.15e9 + 0.13e9
