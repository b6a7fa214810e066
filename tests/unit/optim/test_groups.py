import pytest
import torch
from torch import nn

from groundup.config.model import BigramConfig, GPTConfig, ModernConfig
from groundup.config.train import OptimConfig
from groundup.model.bigram import Bigram
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.lora import add_lora
from groundup.model.parameters import GAIN, parameter_rules
from groundup.optim.build import build_optimizers
from groundup.optim.groups import assert_covers, decay_groups, split_matrices

SHAPES = [
    GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, vocab_size=11),
    ModernConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=11, bias=False),
]


def ruled(model):
    rules = parameter_rules(model)
    return [(rules[name], p) for name, p in model.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("config", SHAPES)
def test_matrices_decay_and_vectors_do_not(config):
    model = build_model(config)
    names = {p: name for name, p in model.named_parameters()}
    groups = decay_groups(ruled(model), 0.1)
    rates = {names[p]: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(rates) == set(names.values())
    assert sum(len(group["params"]) for group in groups) == len(names)
    for name, rate in rates.items():
        vector = name.endswith(".bias") or "ln_" in name
        assert rate == (0.0 if vector else 0.1), name


def test_the_tied_head_is_one_parameter():
    model = build_model(SHAPES[0])
    (embedding,) = [p for p in model.parameters() if p.shape == (11, 16)]
    groups = decay_groups(ruled(model), 0.1)
    assert sum(p is embedding for group in groups for p in group["params"]) == 1


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = build_model(SHAPES[1])
    for name, p in model.named_parameters():
        if "ln_" in name:
            p.requires_grad_(False)
    (group,) = decay_groups(ruled(model), 0.1)
    assert group["weight_decay"] == 0.1
    assert all(p.requires_grad for p in group["params"])
    assert_covers(model, [group])


@pytest.mark.parametrize("config", SHAPES)
def test_muon_gets_the_matrices_inside_the_blocks_and_nothing_else(config):
    model = build_model(config)
    names = {p: name for name, p in model.named_parameters()}
    inside, others = ([p for _, p in part] for part in split_matrices(ruled(model)))
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


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("config", SHAPES)
def test_the_table_says_what_names_and_dimensions_said(config, lora):
    """Until there was a table, groups came from dimensions and from the prefix of a block."""
    model = build_model(config)
    if lora:
        add_lora(model, rank=3, alpha=6.0, seed=0)
    rules = parameter_rules(model)
    assert list(rules) == [name for name, _ in model.named_parameters()]
    for name, p in model.named_parameters():
        rule = rules[name]
        assert rule.decays == (p.dim() >= 2), name
        assert bool(rule.maps) == (p.dim() == 2 and name.startswith("h.")), name
        if name.endswith(("lora_a", "lora_b")):
            assert (rule.init, rule.maps) == ("layer", 1), name
            continue
        assert (rule.maps == 3) == (rule.maps > 0 and p.shape[0] == 3 * p.shape[1]), name
        narrow = "stream" if name.endswith("c_proj.weight") else "normal"
        assert rule.init == (narrow if p.dim() == 2 else "zero" if name.endswith("bias") else "one"), name


def test_the_bigram_has_a_table():
    assert [rule.maps for rule in parameter_rules(Bigram(BigramConfig(vocab_size=5))).values()] == [0]


def test_a_parameter_that_no_table_knows_is_an_error():
    model = build_model(SHAPES[0])
    model.h[1].mlp.gate = nn.Linear(2, 2, bias=False)
    line = r"the parameter h\.1\.mlp\.gate\.weight has 0 rules, it needs one; see PARAMETERS of GPT"
    with pytest.raises(ValueError, match=line):
        init_weights(model, seed=0)
    for name in ("adamw", "muon"):
        with pytest.raises(ValueError, match=line):
            build_optimizers(model, OptimConfig(name=name), torch.device("cpu"))


def test_two_tables_that_disagree_are_an_error():
    model = build_model(SHAPES[0])
    model.h[0].mlp.PARAMETERS = {"c_fc.weight": GAIN}
    with pytest.raises(ValueError, match=r"h\.0\.mlp\.c_fc\.weight has 2 rules"):
        parameter_rules(model)
