import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig
from groundup.generation.engine import generate_ids
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.model.swap import use_matmul
from groundup.runtime import matmul, timing
from groundup.runtime.matmul import OneDNNLinear, onednn_is_there, onednn_product, pick_matmul

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not onednn_is_there(CPU), reason="this PyTorch has no oneDNN")


class Counter:
    def __init__(self, monkeypatch):
        self.calls = 0
        real = matmul.onednn_product

        def count(*args):
            self.calls += 1
            return real(*args)

        monkeypatch.setattr(matmul, "onednn_product", count)


@pytest.fixture(params=["onednn", "kernels"])
def kernels(request):
    """None, or compiled ones that give weights their gradient."""
    if request.param == "onednn":
        return None
    kernels = load_kernels(lambda _: None)
    if not isinstance(kernels, CompiledKernels):
        pytest.skip("needs a C++ compiler")
    return kernels


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(40, 32), (3, 7, 32), (2, 3, 5, 32), (1, 32), (1200, 112), (9, 24)])
def test_equals_the_default_in_double_precision(monkeypatch, kernels, bias, shape):
    count = Counter(monkeypatch)
    torch.manual_seed(0)
    x, linear = torch.randn(shape), nn.Linear(shape[-1], 130, bias=bias)
    grad = torch.randn(*shape[:-1], 130)
    ours = OneDNNLinear(copy.deepcopy(linear), kernels)
    results = []
    for module, dtype in ((linear, torch.float64), (ours, torch.float32)):
        module.to(dtype)
        inputs = x.to(dtype).requires_grad_()
        y = module(inputs)
        y.backward(grad.to(dtype))
        results.append([t.detach().clone().double() for t in (y, inputs.grad, *(p.grad for p in module.parameters()))])
    assert count.calls == (3 if kernels is None or shape[-1] % kernels.lanes else 2)
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() <= 1e-6 * exact.norm()
        if shape[0] <= 40:  # sums of 1,200 numbers are rounded by more
            torch.testing.assert_close(rounded, exact, rtol=1e-5, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize("recompute", [False, True])
def test_a_whole_model(monkeypatch, kernels, recompute):
    """The head and the blocks that are computed again in the backward pass are oneDNN's as well."""
    count = Counter(monkeypatch)
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=50, dropout=0.1)
    idx = torch.randint(50, (4, 16), generator=torch.Generator().manual_seed(1))
    results = []
    for choice in ("default", "onednn" if kernels is None else "kernels"):
        model = init_weights(GPT(config), seed=0)
        model.recompute = recompute
        use_matmul(model, choice, kernels)
        torch.manual_seed(3)
        loss = LossModule(model)(idx, idx.roll(-1, 1))
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    by_onednn = 3 if kernels is None else 2
    assert count.calls == by_onednn * (4 * 2 + 1) + (4 * 2 if recompute else 0)
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@needs_onednn
def test_what_is_computed_again_is_computed_alike(tiny_model):
    use_matmul(tiny_model.train(), "onednn")
    module = LossModule(tiny_model)
    idx = torch.randint(27, (2, 16))
    grads = []
    for tiny_model.recompute in (False, True):
        module.zero_grad()
        module(idx, idx).backward()
        grads.append([p.grad.clone() for p in tiny_model.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


@needs_onednn
def test_only_what_it_can_do_is_taken(monkeypatch):
    count = Counter(monkeypatch)
    wide = torch.randn(32, 8)
    linear = OneDNNLinear(nn.Linear(8, 5))
    linear(wide)
    assert count.calls == 1
    OneDNNLinear(nn.Linear(8, 5)).double()(wide.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(wide).dtype == torch.bfloat16
    assert count.calls == 1
    linear.weight.requires_grad_(False)
    linear(wide).sum().backward()
    assert linear.weight.grad is None


@needs_onednn
def test_compiled_code_does_without(monkeypatch):
    count = Counter(monkeypatch)
    linear = OneDNNLinear(nn.Linear(8, 5))
    x = torch.randn(3, 8)
    compiled = torch.compile(linear, backend="eager")
    assert torch.equal(compiled(x), F.linear(x, linear.weight, linear.bias))
    assert count.calls == 0


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pick_matmul.cache_clear()
    yield
    pick_matmul.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_no_choice(monkeypatch):
    monkeypatch.setattr(timing, "seconds", lambda call: 1.0 if call.args[0] is F.linear else 0.1)
    assert pick_matmul(torch.device("meta"), rows=64, n_embd=8, training=True) == "default"
    assert pick_matmul(CPU, rows=1, n_embd=8, training=False) == "default"  # too narrow to decode by detour
    monkeypatch.setattr(matmul, "onednn_is_there", lambda device: False)
    assert pick_matmul(CPU, rows=64, n_embd=8, training=True) == "default"


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("ours", "expected"), [(0.5, "onednn"), (0.95, "default"), (2.0, "default")])
@pytest.mark.parametrize("training", [True, False])
def test_takes_what_measures_faster(monkeypatch, ours, expected, training):
    monkeypatch.setattr(matmul, "onednn_is_there", lambda device: True)
    monkeypatch.setattr(timing, "seconds", lambda call: 1.0 if call.args[0] is F.linear else ours)
    assert pick_matmul(CPU, rows=64, n_embd=256, training=training) == expected
    pick_matmul.cache_clear()  # as the next process
    monkeypatch.setattr(timing, "seconds", lambda call: pytest.fail("it is remembered"))
    assert pick_matmul(CPU, rows=64, n_embd=256, training=training) == expected


@needs_onednn
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("sooner", "expected"), [(0.5, "kernels"), (1.5, "onednn")])
def test_takes_the_gradients_of_the_kernels_where_they_are_faster(monkeypatch, sooner, expected):
    kernels = load_kernels(lambda _: None)
    if not isinstance(kernels, CompiledKernels):
        pytest.skip("needs a C++ compiler")

    def seconds(call):
        way = call.args[0]
        return 1.0 if way is F.linear else 0.5 * (sooner if way.args[0]._kernels else 1)

    monkeypatch.setattr(timing, "seconds", seconds)
    assert pick_matmul(CPU, rows=64, n_embd=256, training=True, kernels=kernels) == expected
    assert pick_matmul(CPU, rows=64, n_embd=256, training=False, kernels=kernels) == "onednn"
    assert pick_matmul(CPU, rows=64, n_embd=250, training=True, kernels=kernels) == "onednn"  # fills no vectors


@needs_onednn
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_no_trace(training):
    before = torch.get_rng_state()
    assert pick_matmul(CPU, rows=8, n_embd=256, training=training) in ("default", "onednn")
    assert torch.equal(before, torch.get_rng_state())
    assert torch.is_grad_enabled()


@needs_onednn
def test_decoding_by_onednn_draws_the_same_tokens():
    config = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=50)
    model = init_weights(GPT(config), seed=0).eval()
    drawn = []
    for choice in ("default", "onednn"):
        use_matmul(model, choice)
        drawn.append(list(generate_ids(model, [1, 2, 3], max_new_tokens=10, sampling=SamplingConfig())))
    assert drawn[0] == drawn[1]


@needs_onednn
def test_product():
    x, w, b = torch.randn(6, 4), torch.randn(3, 4), torch.randn(3)
    torch.testing.assert_close(onednn_product(x, w, b), x @ w.T + b)
    torch.testing.assert_close(onednn_product(x, w.T.contiguous().T), x @ w.T)
