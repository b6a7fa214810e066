"""All blocks of GPT-2 as one step of autograd compute what they do one by one, to the bit."""

import copy

import pytest
import torch

import needs
from groundup.config.model import GPTConfig
from groundup.kernels import one_call
from groundup.kernels.compiled import load_kernels
from groundup.model.build import build_model
from groundup.model.gpt import Blocks
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.parts.one_step import OneStepBlocks
from groundup.parts.swap import use_cpu_parts

pytestmark = needs.compiler
SHAPE = {"n_layer": 3, "n_head": 2, "n_embd": 64, "block_size": 40, "vocab_size": 31}


@pytest.fixture
def steps(monkeypatch):
    """How many blocks each step had."""
    load_kernels(lambda _: None)  # whose own test, where it is still to be made, takes steps, too
    seen, apply = [], one_call._Blocks.apply
    monkeypatch.setattr(
        one_call._Blocks,
        "apply",
        lambda x, calls, blocks, *others: seen.append(blocks.n) or apply(x, calls, blocks, *others),
    )
    return seen


def new_model(**changes):
    model = init_weights(build_model(GPTConfig(**SHAPE, **changes)), seed=0)
    use_cpu_parts(model, "default", load_kernels(lambda _: None), alone=False, one_call=True)
    assert isinstance(model.h, OneStepBlocks)
    return model


def one_by_one(model):
    """A copy whose blocks follow each other as the page has it."""
    other = copy.deepcopy(model)
    other.h = Blocks(list(other.h))
    return other


def learn(model):
    idx = torch.randint(31, (3, 37), generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    loss = LossModule(model)(idx, idx.roll(-1, 1))
    loss.backward()
    return [loss, *(part.grad for part in model.parameters())]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
def test_numbers_and_gradients_are_those_of_blocks_one_by_one(bias, dropout, steps):
    model = new_model(bias=bias, dropout=dropout)
    other = one_by_one(model)
    assert all(a.equal(b) for a, b in zip(learn(model), learn(other), strict=True))
    assert steps == [3, 1, 1, 1]


def hooked(model, seen):
    model.h[1].register_forward_hook(lambda *_: seen.append("forward"))


def hooked_before(model, seen):
    model.h[1].register_forward_pre_hook(lambda *_: seen.append("before"))


def hooked_back(model, seen):
    model.h[1].register_full_backward_hook(lambda *_: seen.append("back"))


def hooked_before_the_way_back(model, seen):
    model.h[1].register_full_backward_pre_hook(lambda *_: seen.append("before the way back"))


@pytest.mark.parametrize("hook", [hooked, hooked_before, hooked_back, hooked_before_the_way_back])
def test_who_watches_a_block_sees_it(hook, steps):
    model, seen = new_model(), []
    expected = learn(copy.deepcopy(model))
    hook(model, seen)
    assert all(a.equal(b) for a, b in zip(learn(model), expected, strict=True))
    assert len(seen) == 1
    assert steps == [3, 1, 1, 1]


@pytest.mark.parametrize("change", ["dropout", "eps"])
def test_blocks_that_differ_follow_each_other(change, steps):
    model = new_model(dropout=0.3)
    if change == "dropout":
        model.h[2].attn.drop.p = model.h[2].mlp.drop.p = 0.1
    else:
        model.h[2].ln_1.eps = model.h[2].ln_2.eps = 0.5
    other = one_by_one(model)
    assert all(a.equal(b) for a, b in zip(learn(model), learn(other), strict=True))
    assert steps == 6 * [1]


def test_another_block_among_them_is_called(steps):
    class Other(torch.nn.Module):
        def forward(self, x, **context):
            return 2 * x

    model = new_model()
    model.h[1] = Other()
    other = one_by_one(model)
    assert all(a.equal(b) for a, b in zip(learn(model), learn(other), strict=True))
    assert steps == 4 * [1]


def test_computed_again_they_follow_each_other(steps):
    model = new_model(dropout=0.3)
    expected = learn(copy.deepcopy(model))
    model.recompute = True
    assert all(a.equal(b) for a, b in zip(learn(model), expected, strict=True))
    assert steps[0] == 3
    assert set(steps[1:]) == {1}


def test_with_a_cache_they_follow_each_other(steps):
    model = new_model().eval()
    idx = torch.arange(20)[None]
    with torch.no_grad():
        cached = model(idx, cache=model.new_cache(1, 20))
        assert not steps
        torch.testing.assert_close(model(idx), cached, rtol=1e-4, atol=1e-4)
    assert steps == [3]


def test_where_nothing_goes_back_all_blocks_share_a_room(monkeypatch, steps):
    model, rooms, empty = new_model(), [], torch.empty
    monkeypatch.setattr(
        one_call.torch, "empty", lambda *size, **kind: (kind and rooms.append(kind)) or empty(*size, **kind)
    )
    idx = torch.arange(20)[None]
    with torch.no_grad():
        expected = one_by_one(model)(idx)
        rooms.clear()
        assert model(idx).equal(expected)
    assert rooms == [{"dtype": torch.uint8}]


def test_they_go_back_once(steps):
    model = new_model()
    y = model(torch.arange(20)[None]).sum()
    y.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="they go back once"):
        y.backward()
    assert steps == [3]
