"""A block as one step of autograd computes what the page's block does, to the bit; in one call up to rounding."""

import copy
from dataclasses import replace

import pytest
import torch

import needs
from groundup.config.model import GPTConfig, ModernConfig
from groundup.kernels.compiled import CompiledKernels, load_kernels
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.lora import add_lora
from groundup.model.loss import LossModule
from groundup.model.modern import Block
from groundup.parts import one_step, swap
from groundup.parts.one_step import OneStepBlock, OneStepModernBlock
from groundup.parts.swap import use_cpu_parts
from groundup.planner.memory import suits_one_step
from groundup.runtime.matmul import onednn_is_there

pytestmark = needs.compiler
SHAPE = GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=40, vocab_size=31)
ROTATED = ModernConfig(n_layer=2, n_head=2, n_embd=64, block_size=40, vocab_size=31, rope_share=0.5, norm_eps=1e-3)
SHAPES = pytest.mark.parametrize("shape", [SHAPE, ROTATED], ids=["gpt2", "rotated"])
MATMULS = ["default", "onednn", "kernels"] if onednn_is_there(torch.device("cpu")) else ["default"]


def new_model(shape=SHAPE, **changes):
    model = init_weights(build_model(replace(shape, **{"bias": False, **changes})), seed=0)
    generator = torch.Generator().manual_seed(1)
    for part in model.parameters():  # gains are not 1 and biases not 0
        part.data += torch.randn(part.shape, generator=generator) * 0.05
    return model


def both_ways(model, monkeypatch, matmul="default", *, one_call=True):
    """The model with blocks of one step, and with those of the page; both have the other kernels."""
    ours, pages = copy.deepcopy(model), copy.deepcopy(model)
    kernels = copy.copy(load_kernels(lambda _: None))
    assert isinstance(kernels, CompiledKernels)
    if not one_call:
        kernels.one_call = {}
    use_cpu_parts(ours, matmul, kernels, alone=False)
    with monkeypatch.context() as patch:
        for name in ("OneStepBlock", "OneStepBlocks", "OneStepModernBlock"):
            patch.setattr(swap, name, lambda block, *_, **__: block)
        use_cpu_parts(pages, matmul, kernels, alone=False)
    kinds = OneStepBlock, OneStepModernBlock
    assert all(isinstance(block, kinds) for block in ours.blocks)
    assert not any(isinstance(block, kinds) for block in pages.blocks)
    return ours, pages


def learn(model, dtype=torch.float32):
    """The loss of a batch, and the gradients."""
    idx = torch.randint(31, (3, 37), generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = LossModule(model)(idx, idx.roll(-1, 1))
    loss.backward()
    return loss, {name: part.grad for name, part in model.named_parameters()}


@pytest.fixture
def steps(monkeypatch):
    """How often a block was one step."""
    seen, run = [], one_step.run_block
    monkeypatch.setattr(one_step, "run_block", lambda *args: seen.append(1) or run(*args))
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("matmul", MATMULS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
@SHAPES
def test_loss_and_gradients_are_those_of_the_page_to_the_bit(shape, bias, dropout, matmul, dtype, monkeypatch, steps):
    ours, pages = both_ways(new_model(shape, bias=bias, dropout=dropout), monkeypatch, matmul, one_call=False)
    (loss, grads), (expected, theirs) = learn(ours, dtype), learn(pages, dtype)
    assert len(steps) == SHAPE.n_layer
    assert loss.equal(expected)
    assert all(grads[name].equal(theirs[name]) for name in theirs)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
@SHAPES
def test_in_bfloat16_gradients_are_as_near_to_float32s_as_the_pages(shape, bias, dropout, monkeypatch):
    """In one call they are nearer: it does not round the gradients of weights."""
    ours, pages = both_ways(new_model(shape, bias=bias, dropout=dropout), monkeypatch)
    (_, exact), (_, narrow), (_, usual) = (
        learn(copy.deepcopy(pages)),
        learn(ours, torch.bfloat16),
        learn(pages, torch.bfloat16),
    )
    for name, grad in exact.items():
        error, usual_error = ((part[name] - grad).norm() / grad.norm() for part in (narrow, usual))
        assert error < max(0.01, 1.2 * usual_error), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@SHAPES
def test_computing_a_block_again_gives_the_same_gradients(shape, dtype, monkeypatch):
    ours, _ = both_ways(new_model(shape, bias=True, dropout=0.3), monkeypatch)
    again = copy.deepcopy(ours)
    again.recompute = True
    (loss, grads), (expected, theirs) = learn(again, dtype), learn(ours, dtype)
    assert loss.equal(expected)
    assert all(grads[name].equal(theirs[name]) for name in theirs)


def test_what_is_frozen_gets_no_gradient(monkeypatch):
    ours, pages = both_ways(new_model(bias=True), monkeypatch)
    for model in (ours, pages):
        for name, part in model.named_parameters():
            part.requires_grad_("c_fc" not in name and "ln_2" not in name and "c_attn.bias" not in name)
    (_, grads), (_, theirs) = learn(ours), learn(pages)
    assert {name for name, grad in grads.items() if grad is None} == {
        name for name, grad in theirs.items() if grad is None
    }
    assert all(grad is None or grad.equal(theirs[name]) for name, grad in grads.items())


@pytest.mark.parametrize("before", [True, False])
def test_evaluation_drops_nothing_and_keeps_nothing(before, monkeypatch, steps):
    ours, pages = both_ways(new_model(dropout=0.3).train(not before), monkeypatch)
    if not before:
        ours.eval(), pages.eval()
    idx = torch.arange(20)[None]
    with torch.no_grad():
        assert ours(idx).equal(pages(idx))
    with torch.inference_mode():
        assert ours(idx).equal(pages(idx))
    assert len(steps) == 2 * SHAPE.n_layer


def hooked(model):
    model.blocks[0].mlp.register_forward_hook(lambda *args: None)
    model.blocks[1].attn.c_proj.register_forward_pre_hook(lambda *args: None)


def watched_on_the_way_back(model):
    model.blocks[0].mlp.register_full_backward_hook(lambda *args: None)
    model.blocks[1].ln_2.register_full_backward_pre_hook(lambda *args: None)


def with_lora(model):
    add_lora(model, rank=2, alpha=4.0, seed=0)


def with_other_dropout(model):
    for block in model.blocks:
        block.mlp.drop.p = 0.1


@pytest.mark.parametrize(
    "change", [hooked, watched_on_the_way_back, with_lora, with_other_dropout, lambda model: model.double()]
)
def test_what_the_kernels_cannot_do_is_done_as_the_page_has_it(change, monkeypatch, steps):
    ours, pages = both_ways(new_model(), monkeypatch)
    change(ours), change(pages)
    (loss, grads), (expected, theirs) = learn(ours), learn(pages)
    assert not steps
    assert loss.equal(expected)
    assert all(grad is None or grad.equal(theirs[name]) for name, grad in grads.items())


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "rms"},
        {"activation": "relu2"},
        {"n_kv_head": 1},
        {"n_inner": 192},
        {"qk_norm": True},
        {"value_residual": True},
        {"stream_scales": True},
    ],
    ids=str,
)
def test_blocks_of_other_parts_stay_the_pages(change):
    model = new_model(ROTATED, **change)
    use_cpu_parts(model, "default", load_kernels(lambda _: None), alone=True)
    assert all(type(block) is Block for block in model.blocks)
    assert not suits_one_step(model.config)


@pytest.mark.parametrize(
    "change",
    [{"ngram": 3}, {"smear": True}, {"tied_head": False}, {"logit_softcap": 15.0}, {"position": "learned"}],
    ids=str,
)
def test_what_is_outside_of_blocks_does_not_matter_to_them(change, monkeypatch, steps):
    ours, pages = both_ways(new_model(ROTATED, **change), monkeypatch)
    (loss, grads), (expected, theirs) = learn(ours), learn(pages)
    assert len(steps) == SHAPE.n_layer
    assert loss.equal(expected)
    assert all(
        (grad.to_dense() if grad.is_sparse else grad).equal(theirs[name].to_dense()) for name, grad in grads.items()
    )


@SHAPES
def test_narrow_heads_and_caches_go_the_pages_way(shape, monkeypatch, steps):
    narrow = new_model(shape, n_head=16)  # 4 numbers fill no vector
    pages = copy.deepcopy(narrow)
    use_cpu_parts(narrow, "default", load_kernels(lambda _: None), alone=True)
    assert torch.allclose(learn(narrow)[0], learn(pages)[0], atol=1e-6)
    ours, pages = both_ways(new_model(shape), monkeypatch)
    idx = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.allclose(ours(idx, cache=ours.new_cache(1, 10)), pages(idx), atol=1e-5)
    assert not steps


@SHAPES
def test_it_has_the_parts_and_names_of_the_page(shape, monkeypatch):
    ours, pages = both_ways(new_model(shape, bias=True), monkeypatch)
    assert list(ours.state_dict()) == list(pages.state_dict())
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in pages.named_modules()]
