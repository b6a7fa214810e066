import pytest
from torch import nn

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.build import build_model
from groundup.optim.groups import assert_covers, decay_groups, split_matrices

SHAPES = [
    GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=11),
    ModernConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=11, bias=False),
]


@pytest.mark.parametrize("config", SHAPES)
def test_matrices_decay_and_vectors_do_not(config):
    model = build_model(config)
    names = {p: name for name, p in model.named_parameters()}
    groups = decay_groups(model.parameters(), 0.1)
    rates = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(rates) == set(names.values())
    assert sum(len(group["params"]) for group in groups) == len(names)
    for name, rate in rates.items():
        vector = name.endswith(".bias") or "ln_" in name
        assert rate == (0.0 if vector else 0.1), name


def test_the_tied_head_is_one_parameter():
    model = build_model(SHAPES[0])
    (embedding,) = [p for p in model.parameters() if p.shape == (11, 16)]
    groups = decay_groups(model.parameters(), 0.1)
    assert sum(p is embedding for group in groups for p in group["params"]) == 1


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = build_model(SHAPES[1])
    for name, p in model.named_parameters():
        if "ln_" in name:
            p.requires_grad_(False)
    (group,) = decay_groups(model.parameters(), 0.1)
    assert group["weight_decay"] == 0.1
    assert all(p.requires_grad for p in group["params"])
    assert_covers(model, [group])


@pytest.mark.parametrize("config", SHAPES)
def test_muon_gets_the_matrices_inside_the_blocks_and_nothing_else(config):
    model = build_model(config)
    names = {p: name for name, p in model.named_parameters()}
    inside, others = split_matrices(model)
    ends = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    assert [names[p] for p in inside] == [f"h.{i}.{end}" for i in range(config.n_layer) for end in ends]
    assert {names[p] for p in others} == set(names.values()) - {names[p] for p in inside}


def test_a_forgotten_or_doubled_parameter_is_noticed():
    model = nn.Linear(3, 2)
    assert_covers(model, [{"params": [model.weight]}, {"params": [model.bias]}])
    with pytest.raises(AssertionError, match="1 parameters are in no group"):
        assert_covers(model, [{"params": [model.weight]}])
    with pytest.raises(AssertionError, match="a parameter is in two groups"):
        assert_covers(model, [{"params": [model.weight, model.bias]}, {"params": [model.bias]}])
    with pytest.raises(AssertionError):
        assert_covers(model, [{"params": [model.weight, model.bias, nn.Parameter(model.bias.detach())]}])
