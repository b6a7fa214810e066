"""The loss of a GPT-2 in one step is the page's, with all gradients, where nobody could tell the difference."""

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import needs
from groundup.config.data import IGNORE
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.kernels import whole_loss
from groundup.kernels.compiled import load_kernels
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.lora import add_lora
from groundup.model.loss import LossModule
from groundup.parts.one_step import OneStepBlocks
from groundup.parts.swap import use_cpu_parts
from groundup.planner.memory import LARGEST_IN_ONE_STEP

pytestmark = needs.compiler
SHAPE = {"n_layer": 3, "n_head": 2, "n_embd": 64, "block_size": 40, "vocab_size": 31}
KERNELS = load_kernels(lambda _: None)
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 0.03}


@pytest.fixture
def steps(monkeypatch):
    """One for each loss in one step."""
    seen, apply = [], whole_loss._Loss.apply
    monkeypatch.setattr(whole_loss._Loss, "apply", lambda *args: seen.append(1) or apply(*args))
    return seen


def new_page(**changes):
    model = init_weights(build_model(GPTConfig(**{**SHAPE, **changes})), seed=0)
    generator = torch.Generator().manual_seed(1)
    for part in model.parameters():  # gains are not 1 and biases not 0
        part.data += torch.randn(part.shape, generator=generator) * 0.05
    return model


def swapped(model, *, alone=True):
    model = copy.deepcopy(model)
    use_cpu_parts(model, "default", KERNELS, alone=alone, one_call=True)
    return model


def new_model(**changes):
    return swapped(new_page(**changes))


def batch(texts=3, tokens=37, n=31):
    idx = torch.randint(n, (texts, tokens), generator=torch.Generator().manual_seed(2))
    return idx, idx.roll(-1, 1).masked_fill(idx % 7 == 3, IGNORE)


def learn(model, idx=None, targets=None, *, scale=1.0, by=1):
    if idx is None:
        idx, targets = batch(n=model.config.vocab_size)
    torch.manual_seed(3)
    loss = LossModule(model)(idx, targets)
    (loss * scale).backward()
    return [loss.detach() / by, *(part.grad for part in model.parameters())]


def assert_near(some, others, bound=BOUNDS[torch.float32]):
    for a, b in zip(some, others, strict=True):
        assert a.shape == b.shape
        assert (a - b).norm() <= bound * b.norm()


@settings(max_examples=25, deadline=None)
@given(
    texts=st.integers(1, 3),
    tokens=st.sampled_from([1, 2, 31, 32, 33, 40]),
    n_layer=st.integers(1, 3),
    vocab_size=st.sampled_from([1, 2, 15, 16, 17, 65]),
    bias=st.booleans(),
    dtype=st.sampled_from(list(KERNELS.whole_loss)),
)
@example(texts=1, tokens=2, n_layer=1, vocab_size=2, bias=True, dtype=list(KERNELS.whole_loss)[-1])
def test_loss_and_gradients_are_those_of_the_page_in_double_precision(texts, tokens, n_layer, vocab_size, bias, dtype):
    page = new_page(n_layer=n_layer, vocab_size=vocab_size, bias=bias)
    ours, (idx, targets) = swapped(page), batch(texts, tokens, vocab_size)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        told = learn(ours, idx, targets, scale=1 / 16)
    assert isinstance(LossModule(ours)(idx, targets).grad_fn, torch.autograd.function.BackwardCFunction)
    whole = learn(page.double(), idx, targets, scale=1 / 16)
    page.zero_grad()
    counted = (targets != IGNORE).flatten()
    first = targets.masked_fill((counted.cumsum(0) > 1).view_as(targets), IGNORE)
    one = learn(page, idx, first, scale=1 / 16)
    for a, b, c in zip(told, whole, one, strict=True):
        # What tokens give may cancel in their sum, its rounding to 16 bits does not.
        rounded = max(b.norm(), c.norm()) if dtype == torch.bfloat16 else b.norm()
        assert (a - b).norm() <= BOUNDS[dtype] * rounded + 1e-6


def test_with_dropout_it_draws_as_the_parts_do(steps):
    page = new_page(dropout=0.3)
    assert_near(learn(swapped(page)), learn(swapped(page, alone=False)))
    assert steps == [1]


def test_bits_do_not_depend_on_threads(steps):
    model = new_model(dropout=0.3)
    expected = learn(copy.deepcopy(model))
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            model.zero_grad()
            assert all(a.equal(b) for a, b in zip(learn(model), expected, strict=True))
    finally:
        torch.set_num_threads(threads)
    assert len(steps) == 4


def test_gradients_add_up(steps):
    model = new_model()
    first = [part.clone() for part in learn(model)]
    again = learn(model)
    assert again[0].equal(first[0])
    assert all(a.equal(2 * b) for a, b in zip(again[1:], first[1:], strict=True))
    assert len(steps) == 2


def test_it_is_divided_by_the_tokens_of_a_step(steps):
    page = new_page()
    for model in (page, swapped(page)):
        loss = LossModule(model)(*batch(), 80)
        loss.backward()
        assert_near(
            [loss, *(part.grad for part in model.parameters())], learn(copy.deepcopy(page), scale=1 / 80, by=80)
        )
    assert steps == [1]


def test_what_is_known_of_one_model_and_batch_is_not_taken_for_another(steps):
    page = new_page(dropout=0.3)
    model = swapped(page)

    def as_a_new_one_does(share, *ids):
        model.zero_grad()
        fresh = swapped(page)
        for to, value in zip(fresh.parameters(), model.parameters(), strict=True):
            to.data.copy_(value)
        for parts in (fresh, model):
            for part in parts.modules():
                if hasattr(part, "p"):
                    part.p = share
        told = learn(model, *ids)
        KERNELS.whole_loss[torch.float32]._last = None
        return all(a.equal(b) for a, b in zip(told, learn(fresh, *ids), strict=True))

    for share in (0.3, 0.0, 0.5):
        assert as_a_new_one_does(share, *batch())
        assert as_a_new_one_does(share, *batch(texts=2))
        for part in model.parameters():
            part.data = part.data * 1.5  # at another place
        assert as_a_new_one_does(share, *batch(texts=2))
        assert as_a_new_one_does(share, *batch(tokens=40))
    assert len(steps) == 24


def test_it_goes_back_once(steps):
    loss = LossModule(new_model())(*batch())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="it goes back once"):
        loss.backward()
    assert steps


def test_gradients_are_of_the_weights_that_the_loss_is_of(steps):
    model = new_model()
    expected, other = learn(copy.deepcopy(model)), copy.deepcopy(model)
    loss = LossModule(other)(*batch())
    with torch.no_grad():
        other.h[0].mlp.c_fc.weight.zero_()
    loss.backward()
    assert all(part.grad.equal(grad) for part, grad in zip(other.parameters(), expected[1:], strict=True))
    assert len(steps) == 2


@pytest.mark.parametrize("late", ["register_hook", "register_post_accumulate_grad_hook"])
def test_who_watches_too_late_hears_of_it(late, steps):
    model = new_model()
    loss = LossModule(model)(*batch())
    getattr(model.h[1].mlp.c_fc.weight, late)(lambda *_: None)
    with pytest.raises(RuntimeError, match="hook parameters before"):
        loss.backward()
    assert len(steps) == 1
    assert model.wte.weight.grad is None


def test_who_asks_autograd_for_one_gradient_hears_that_it_is_not_there(steps):
    model = new_model()
    with pytest.raises(RuntimeError, match="not have been used"):
        torch.autograd.grad(LossModule(model)(*batch()), model.ln_f.weight)
    assert steps


@pytest.mark.parametrize("what", ["ids", "targets"])
@pytest.mark.parametrize("wrong", [-1, 31, 1 << 40])
def test_what_is_not_in_the_vocabulary_is_an_error(what, wrong, steps):
    idx, targets = batch()
    {"ids": idx, "targets": targets}[what][2, 36] = wrong
    with pytest.raises(IndexError, match=f"{what} are 0 to 30"):
        LossModule(new_model())(idx, targets)
    assert not steps


def test_a_text_that_is_too_long_is_told_as_the_page_tells_it(steps):
    idx = torch.zeros(1, 41, dtype=torch.long)
    with pytest.raises(UserError, match="context is 40 tokens, 41 were given"):
        LossModule(new_model())(idx, idx)
    assert not steps


def hooked_part(model, seen):
    model.ln_f.register_forward_hook(lambda *_: seen.append(1))


def hooked_back(model, seen):
    model.ln_f.register_full_backward_hook(lambda *_: seen.append(1))


def hooked_parameter(model, seen):
    model.h[1].mlp.c_fc.weight.register_hook(lambda _: seen.append(1))


def hooked_behind_the_gradient(model, seen):
    model.h[1].mlp.c_fc.bias.register_post_accumulate_grad_hook(lambda _: seen.append(1))


@pytest.mark.parametrize("hook", [hooked_part, hooked_back, hooked_parameter, hooked_behind_the_gradient])
def test_who_watches_sees_it(hook, steps):
    model, seen = new_model(), []
    expected = learn(copy.deepcopy(model))
    assert len(steps) == 1
    learn(model)
    model.zero_grad()
    hook(model, seen)
    assert_near(learn(model), expected)
    assert seen == [1]
    assert len(steps) == 2


def frozen(model):
    model.h[0].requires_grad_(requires_grad=False)


def two_dropouts(model):
    model.h[2].attn.drop.p = model.h[2].mlp.drop.p = 0.1


def another_dropout_first(model):
    model.drop.p = 0.1


def another_norm(model):
    model.ln_f.eps = 0.5


def another_head(model):
    model.lm_head = build_model(GPTConfig(**SHAPE)).lm_head


def another_embedding(model):
    class Other(torch.nn.Embedding):
        """Of a kind that nobody knows here."""

    model.wpe = Other(40, 64)


def other_type(model):
    model.double()


def with_lora(model):
    add_lora(model, rank=2, alpha=4, seed=0)


def computed_again(model):
    model.recompute = True


CHANGES = [
    frozen, two_dropouts, another_dropout_first, another_norm, another_head, another_embedding, other_type, with_lora,
    computed_again,
]  # fmt: skip


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_suit_goes_the_pages_way(change, late, steps):
    """Also when a model suited before."""
    page = new_page(dropout=0.0 if change in (frozen, other_type, with_lora) else 0.3)
    model = swapped(page)
    if late:
        learn(model)
        model.zero_grad()
        steps.clear()
    change(model)
    told = learn_what_learns(model)
    assert not steps
    model.h = OneStepBlocks(model.h)  # which are not alone
    model.zero_grad()
    assert all(a.equal(b) for a, b in zip(told, learn_what_learns(model), strict=True))


def learn_what_learns(model):
    return [part for part in learn(model) if part is not None]


def test_what_suits_again_is_one_step_again(steps):
    model = new_model()
    model.h[0].requires_grad_(requires_grad=False)
    learn(model)
    assert not steps
    model.requires_grad_()
    handle = model.h[0].register_forward_hook(lambda *_: None)
    learn(model)
    assert not steps
    handle.remove()
    learn(model)
    assert len(steps) == 1


def test_a_part_that_was_replaced_lives_until_it_is_missed(steps):
    """Else a new one might have its id, and pass for it."""
    model = new_model()
    learn(model)
    part = weakref.ref(model.ln_f)
    del model.ln_f
    gc.collect()
    assert part() is not None
    model.ln_f = new_page().ln_f
    learn(model)
    gc.collect()
    assert part() is None
    assert len(steps) == 2


def test_a_copy_looks_for_itself(steps):
    model = new_model()
    learn(model)
    other = copy.deepcopy(model)
    for part in other.parameters():
        part.data *= 1.5
    expected = learn(swapped(new_like(other), alone=False))
    other.zero_grad()
    assert_near(learn(other), expected)
    assert len(steps) == 2


def new_like(model):
    page = new_page()
    page.load_state_dict(model.state_dict())
    return page


def test_nothing_is_kept_where_nothing_goes_back(steps):
    model = new_model()
    with torch.no_grad():
        loss = LossModule(model)(*batch())
    assert not steps
    assert loss.item() == pytest.approx(learn(model)[0].item(), rel=1e-6)


@pytest.mark.parametrize(("vocab_size", "n_steps"), [(LARGEST_IN_ONE_STEP, 1), (LARGEST_IN_ONE_STEP + 1, 0)])
def test_a_large_vocabulary_goes_the_pages_way(vocab_size, n_steps, steps):
    learn(new_model(vocab_size=vocab_size))
    assert len(steps) == n_steps


def test_ids_of_another_type_go_the_pages_way(steps):
    model, (idx, targets) = new_model(), batch()
    expected = learn(copy.deepcopy(model))
    steps.clear()
    assert_near(learn(model, idx.int(), targets), expected)
    assert not steps


def test_ids_may_lie_apart(steps):
    model, (idx, targets) = new_model(), batch()
    expected = learn(copy.deepcopy(model))
    assert all(a.equal(b) for a, b in zip(learn(model, idx.T.contiguous().T, targets), expected, strict=True))
    assert len(steps) == 2
