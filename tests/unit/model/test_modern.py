"""What holds the two pages together, and every switch to the page of pure functions."""

import dataclasses
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model import reference
from groundup.model.build import build_model
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.lora import add_lora, merge_lora
from groundup.model.loss import LossModule, head_loss_sum, lm_loss_sum
from groundup.model.modern import Modern

SHAPE = {"n_layer": 3, "n_head": 4, "n_embd": 32, "block_size": 16, "vocab_size": 27}
GPT2 = ModernConfig(**SHAPE, **ModernConfig.AS_GPT2)
SWITCHES = {
    "smear": True,
    "position": "rope",
    "ngram": 3,
    "norm": "rms",
    "norm_eps": 1e-2,
    "n_inner": 40,
    "activation": "relu2",
    "n_kv_head": 2,
    "qk_norm": True,
    "value_residual": True,
    "stream_scales": True,
    "tied_head": False,
    "logit_softcap": 3.0,
    "proj_init": "zero",
}
"""Another value of each switch."""
NUMBERS = {"rope_base": ("position", 100.0), "rope_share": ("position", 0.5), "ngram_rows": ("ngram", 50)}
"""No switches: a switch reads them."""
ALONE = {name: dataclasses.replace(GPT2, **{name: value}) for name, value in SWITCHES.items()}
CONFIGS = (
    ALONE
    | {
        f"{name} {value}": dataclasses.replace(GPT2, **{name: value})
        for name, kind in get_type_hints(ModernConfig).items()
        if name in SWITCHES and get_origin(kind) is Literal
        for value in sorted({*get_args(kind)} - {SWITCHES[name], ModernConfig.AS_GPT2[name]})
    }
    | {name: dataclasses.replace(ALONE[switch], **{name: value}) for name, (switch, value) in NUMBERS.items()}
    | {"all": dataclasses.replace(GPT2, **SWITCHES, rope_base=100.0, rope_share=0.5)}
    | {"all, no bias": dataclasses.replace(GPT2, **SWITCHES, bias=False)}
)


def awake(model, seed=7):
    """Weights so large that attention is far from uniform and every scale, gain and bias matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype) * 0.3)
    return model.eval()


def model_of(name):
    return awake(init_weights(build_model(CONFIGS[name]), seed=3)).double()


def ids(rows=3, columns=16):
    return torch.randint(27, (rows, columns), generator=torch.Generator().manual_seed(2))


def logits_and_gradients(model, *, recompute=False):
    model.recompute = recompute
    idx = ids()
    torch.manual_seed(5)
    logits = model(idx)
    LossModule(model)(idx, idx.roll(-1, 1)).backward()
    return [logits.detach(), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("recompute", [False, True])
def test_with_every_switch_at_gpt2s_value_it_is_gpt2(bias, dropout, recompute):
    page = init_weights(GPT(GPTConfig(**SHAPE, bias=bias, dropout=dropout)), seed=1)
    modern = init_weights(Modern(dataclasses.replace(GPT2, bias=bias, dropout=dropout)), seed=1)
    assert list(page.state_dict()) == list(modern.state_dict())
    pairs = (logits_and_gradients(model, recompute=recompute) for model in (page, modern))
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_every_switch_has_a_value_of_gpt2_and_a_case_here():
    own = {field.name for field in dataclasses.fields(ModernConfig)} - {f.name for f in dataclasses.fields(GPTConfig)}
    assert set(SWITCHES) == set(ModernConfig.AS_GPT2)
    assert own - set(SWITCHES) == set(NUMBERS)
    plain = ModernConfig(**SHAPE)
    assert {name for name, value in ModernConfig.AS_GPT2.items() if getattr(plain, name) != value} == {"position"}


@pytest.mark.parametrize("name", [*SWITCHES, *NUMBERS])
def test_each_switch_alone_changes_the_logits(name):
    config = CONFIGS[name]
    start = GPT2 if name in SWITCHES else ALONE[NUMBERS[name][0]]
    before, after = (init_weights(Modern(c), seed=1).double() for c in (start, config))
    if name != "proj_init":  # of which nothing is left once weights are drawn
        awake(before)
        awake(after, seed=8)
        shapes = {key: p.shape for key, p in before.state_dict().items()}
        common = {key for key, p in after.state_dict().items() if p.shape == shapes.get(key)}
        after.load_state_dict({key: before.state_dict()[key] for key in common}, strict=False)
    assert (before(ids()) - after(ids())).abs().max() > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_the_page_of_pure_functions(name):
    model = model_of(name)
    expected = reference.gpt(ids(), dict(model.state_dict()), model.config)
    torch.testing.assert_close(model(ids()), expected, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("name", CONFIGS)
def test_decoding_with_a_cache_equals_the_full_forward(name):
    model = model_of(name)
    cache = model.new_cache(3, 16)
    with torch.no_grad():
        pieces = [model(piece, cache=cache) for piece in ids().split([5, 1, 1, 7, 2], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids()), atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("static", [False, True])
def test_rows_of_other_lengths_decode_as_if_alone(static):
    model = model_of("all")
    cache = model.new_cache(2, 16, static=static)
    with torch.no_grad():
        model(ids(2, 6), cache=cache)
        cache.truncate([2, 6])
        more = ids(2, 9)[:, 6:]
        got = model(more, cache=cache)
        alone = [
            model(torch.cat((ids(2, 6)[row : row + 1, :n], more[row : row + 1]), 1)) for row, n in ((0, 2), (1, 6))
        ]
    for row, whole in enumerate(alone):
        torch.testing.assert_close(got[row], whole[0, -3:], atol=1e-11, rtol=1e-11)


def test_a_copied_row_goes_on_as_the_one_it_was_copied_from():
    model = model_of("all")
    prompt, more = ids(2, 6), ids(3, 9)[:, 6:]
    cache = model.new_cache(2, 6)
    with torch.no_grad():
        model(prompt, cache=cache)
        got = model(more, cache=cache.gather([1, 0, 1], max_tokens=16))
        whole = model(torch.cat((prompt[[1, 0, 1]], more), dim=1))
    torch.testing.assert_close(got, whole[:, 6:], atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("name", CONFIGS)
def test_recomputing_gives_the_same_gradients(name):
    pairs = (logits_and_gradients(model_of(name).train(), recompute=recompute) for recompute in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_has_a_gradient(name):
    assert all(g.abs().max() > 0 for g in logits_and_gradients(model_of(name)))


@pytest.mark.parametrize("name", CONFIGS)
def test_merging_lora_gives_the_same_function(name):
    model = model_of(name)
    add_lora(model, rank=2, alpha=4.0, seed=0)
    awake(model.double())
    merged = build_model(CONFIGS[name]).double().eval()
    merged.load_state_dict(merge_lora(model.state_dict()))
    torch.testing.assert_close(merged(ids()), model(ids()), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("softcap", [0.0, 2.0])
def test_the_chunked_loss_knows_the_soft_cap(softcap):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(11, (2, 5), generator=generator)
    targets[0, 1] = -100
    logits = hidden @ weight.T
    whole = lm_loss_sum(softcap * torch.tanh(logits / softcap) if softcap else logits, targets)
    chunked = head_loss_sum(hidden, weight, targets, softcap=softcap, chunk_rows=3, multiple=4)
    torch.testing.assert_close(chunked, whole)
    for a, b in zip(*(torch.autograd.grad(loss, (hidden, weight)) for loss in (chunked, whole)), strict=True):
        torch.testing.assert_close(a, b)


def test_zero_projections_make_a_block_add_nothing():
    model = init_weights(Modern(dataclasses.replace(GPT2, proj_init="zero", tied_head=False)), seed=1)
    assert model(ids()).abs().max() == 0
    assert all(
        p.abs().max() > 0 for name, p in model.named_parameters() if name.endswith(("c_attn.weight", "c_fc.weight"))
    )
