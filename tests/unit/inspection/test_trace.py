"""Every array of a trace against the page of pure functions."""

import pytest
import torch

from groundup.config.model import ModernConfig
from groundup.inspection.lens import lens_rows
from groundup.inspection.trace import trace
from groundup.model import reference


def by_hand(idx, w, config):
    """The stream before each block, what each part added, and the logits, by model/reference.py."""
    config = ModernConfig.of(config)
    x = w["wte.weight"][idx][None] + w["wpe.weight"][: len(idx)]
    stream, attn, mlp = [x[0]], [], []
    for i in range(config.n_layer):
        ln_1 = reference.norm(x, w, f"h.{i}.ln_1", config)
        attn.append(reference.attention(ln_1, w, f"h.{i}.attn", config, None)[0])
        x = x + attn[-1]
        mlp.append(reference.mlp(reference.norm(x, w, f"h.{i}.ln_2", config), w, f"h.{i}.mlp", config))
        x = x + mlp[-1]
        stream.append(x[0])
    logits = reference.norm(x, w, "ln_f", config) @ w["wte.weight"].T
    return torch.stack(stream), torch.cat(attn), torch.cat(mlp), logits


def test_stream_and_parts_are_those_of_the_reference(sharp, text):
    seen = trace(sharp, text)
    stream, attn, mlp, logits = by_hand(text, sharp.state_dict(), sharp.config)
    for got, expected in ((seen.residual, stream), (seen.attn, attn), (seen.mlp, mlp), (seen.logits, logits[0])):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_values_gathered_by_the_weights_are_what_attention_adds(sharp, text):
    seen = trace(sharp, text)
    for layer, block in enumerate(sharp.h):
        gathered = (seen.attention[layer] @ seen.values[layer]).transpose(0, 1).flatten(1)  # (T, C)
        torch.testing.assert_close(block.attn.c_proj(gathered), seen.attn[layer], rtol=0, atol=1e-10)
    assert seen.attention[..., -1, :].amax() > 3 / len(text)  # not uniform


def test_each_row_of_the_lens_is_the_model_that_stops_there(sharp, text):
    seen = trace(sharp, text)
    rows = torch.stack([*lens_rows(sharp, seen)])
    w = sharp.state_dict()
    stream = by_hand(text, w, sharp.config)[0]
    config = ModernConfig.of(sharp.config)
    expected = torch.stack([reference.norm(x, w, "ln_f", config) @ w["wte.weight"].T for x in stream])
    torch.testing.assert_close(rows, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_looking_changes_nothing(sharp, text, training):
    sharp.train(training)
    before = {name: tensor.clone() for name, tensor in sharp.state_dict().items()}
    assert torch.equal(trace(sharp, text).logits, trace(sharp, text).logits)  # no dropout
    assert sharp.training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in sharp.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in sharp.modules())
