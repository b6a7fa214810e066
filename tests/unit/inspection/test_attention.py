from dataclasses import asdict

import pytest
import torch

from groundup.config.errors import UsageError, UserError
from groundup.config.model import GPTConfig, ModernConfig
from groundup.inspection.attention import attention_patterns, draw_attention
from groundup.inspection.plots import curve_axes, heat_map, visible
from groundup.model.build import build_model
from groundup.model.init import init_weights


def sharp(config):
    """A model whose patterns are far from uniform: weights as drawn leave them nearly flat."""
    model = init_weights(build_model(config), seed=3).double()
    with torch.no_grad():
        for block in model.h:
            block.attn.c_attn.weight.mul_(20)
    return model


@pytest.fixture(params=["learned", "rope"])
def model(request, tiny_config):
    shape = asdict(tiny_config) | {"dropout": 0.3}
    return sharp(GPTConfig(**shape) if request.param == "learned" else ModernConfig(**shape))


@pytest.fixture
def idx(tiny_config):
    return torch.randint(tiny_config.vocab_size, (tiny_config.block_size,))


def test_rows_sum_to_one_and_nobody_looks_ahead(model, idx):
    patterns = attention_patterns(model, idx)
    T = len(idx)
    assert patterns.shape == (2, 2, T, T)
    torch.testing.assert_close(patterns.sum(dim=-1), torch.ones(2, 2, T, dtype=torch.float64))
    assert not patterns.triu(1).any()
    assert patterns[..., -1, :].amax() > 2 / T  # not uniform


def test_values_gathered_by_the_patterns_are_what_the_layers_compute(model, idx):
    model.eval()
    patterns = attention_patterns(model, idx)
    seen, added = [], []
    for block in model.h:
        block.attn.c_attn.register_forward_hook(lambda _module, given, _output: seen.append(given[0]))
        block.attn.c_proj.register_forward_hook(lambda _module, _given, output: added.append(output))
    model(idx[None])
    for block, pattern, x, output in zip(model.h, patterns, list(seen), list(added), strict=True):
        T, C = x.shape[1:]
        v = block.attn.c_attn(x)[0, :, 2 * C :].view(T, 2, C // 2).transpose(0, 1)  # (H, T, D)
        gathered = (pattern @ v).transpose(0, 1).reshape(T, C)
        torch.testing.assert_close(block.attn.c_proj(gathered), output[0], rtol=0, atol=1e-12)


def test_patterns_are_those_of_transformers(tiny_config, idx):
    transformers = pytest.importorskip("transformers")
    ours = sharp(tiny_config)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 16, "vocab_size": 27}
    theirs = transformers.GPT2Model(transformers.GPT2Config(**shape, attn_implementation="eager")).double().eval()
    theirs.load_state_dict(to_hf_names(ours.state_dict()), strict=False)
    patterns = torch.cat(theirs(idx[None], output_attentions=True).attentions)
    torch.testing.assert_close(attention_patterns(ours, idx), patterns, rtol=0, atol=1e-12)


def to_hf_names(state):
    """Its layers called Conv1D keep their weights transposed."""
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    return {name: value.T if name.endswith(linear) else value for name, value in state.items()}


def test_the_model_is_left_as_it_was(model, idx):
    model.train()
    attention_patterns(model, idx)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(UserError, match="context"):
        attention_patterns(model, torch.cat((idx, idx)))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_picture_has_a_panel_for_each_head(model, idx):
    patterns = attention_patterns(model, idx)
    figure = draw_attention(patterns, list("to be or not be\n"))
    *pictures, bar = figure.axes
    assert [axes.get_title() for axes in pictures] == [f"layer {i}, head {j}" for i in (0, 1) for j in (0, 1)]
    shown = figure.axes[3].get_images()[0].get_array()
    torch.testing.assert_close(torch.tensor(shown.data), patterns[1, 1])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list("to␣be␣or␣not␣be↵")
    figure.canvas.draw()
    assert bar.get_ylabel() == "share of a row's attention"
    assert bar.get_ylim() == (0, 1)
    assert [axes.get_images()[0].get_clim() for axes in pictures] == 4 * [(0, 1)]
    part = draw_attention(patterns, layers=[1], heads=[1, 0])
    assert [axes.get_title() for axes in part.axes[:-1]] == ["layer 1, head 1", "layer 1, head 0"]
    torch.testing.assert_close(torch.tensor(part.axes[1].get_images()[0].get_array().data), patterns[1, 0])
    with pytest.raises(UsageError, match="16 positions, 2"):
        draw_attention(patterns, ["a", "b"])


def test_a_long_text_is_written_on_the_axes_of_a_few_heads(model):
    patterns = torch.eye(40).expand(2, 4, 40, 40)
    assert not draw_attention(patterns, ["x"] * 40).axes[0].get_yticklabels()
    one = draw_attention(patterns, ["x"] * 40, layers=[1], heads=[3])
    assert len(one.axes[0].get_yticklabels()) == 40
    assert one.axes[0].get_title() == "layer 1, head 3"
    assert min(one.get_size_inches()) >= 40 * 0.14  # a letter of 7 points is a tenth of an inch
    longer = draw_attention(torch.eye(200).expand(1, 1, 200, 200), ["x"] * 200)
    assert not longer.axes[0].get_yticklabels()


def test_all_heads_of_gpt2_fit_a_screen():
    width, height = draw_attention(torch.eye(8).expand(12, 12, 8, 8)).get_size_inches()
    assert width <= 14
    assert height <= 17


def test_heat_map_writes_what_is_finite():
    _, axes = curve_axes("x", "y")
    heat_map(axes, [[0.25, float("-inf")], [1, 0]], ["a", "b"], ["c", "d"], written=True, vmin=0, vmax=1)
    assert [text.get_text() for text in axes.texts] == ["0.25", "1", "0"]
    assert visible(" a\n") == "␣a↵"
