"""What holds the two pages together."""

import dataclasses

import pytest
import torch

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.model.modern import Modern

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16, "vocab_size": 27}
GPT2 = ModernConfig(**SHAPE, **ModernConfig.AS_GPT2)
SWITCHES = {"position": {"position": "rope"}}
"""Each switch alone, beside GPT-2's values of all others."""


def logits_and_gradients(model, *, recompute=False):
    model.recompute = recompute
    idx = torch.randint(27, (3, 16), generator=torch.Generator().manual_seed(2))
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
    assert own - set(SWITCHES) == {"rope_base"}  # no switch: a number that one of them reads


@pytest.mark.parametrize("name", SWITCHES)
def test_each_switch_alone_changes_the_logits(name):
    idx = torch.randint(27, (2, 16), generator=torch.Generator().manual_seed(0))
    before, after = (
        init_weights(Modern(config), seed=1).double() for config in (GPT2, dataclasses.replace(GPT2, **SWITCHES[name]))
    )
    common = before.state_dict().keys() & after.state_dict().keys()
    after.load_state_dict({key: before.state_dict()[key] for key in common}, strict=False)
    assert (before(idx) - after(idx)).abs().max() > 1e-3


def test_the_base_of_the_wavelengths_counts():
    idx = torch.randint(27, (2, 16), generator=torch.Generator().manual_seed(0))
    a, b = (init_weights(Modern(ModernConfig(**SHAPE, rope_base=base)), seed=1).double() for base in (100.0, 10_000.0))
    with torch.no_grad():
        for model in (a, b):
            for block in model.h:
                block.attn.c_attn.weight.mul_(20)
    assert (a(idx) - b(idx)).abs().max() > 1e-3
