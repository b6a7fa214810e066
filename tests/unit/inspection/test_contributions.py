from dataclasses import asdict

import pytest
import torch

from groundup.config.errors import UserError
from groundup.config.model import ModernConfig
from groundup.inspection.contributions import contributions
from groundup.inspection.trace import trace
from groundup.model.build import build_model
from groundup.model.init import init_weights


@pytest.mark.parametrize("position", [0, 3, -1])
@pytest.mark.parametrize("token", [0, 11])
def test_terms_sum_to_the_logit(sharp, text, position, token):
    seen = trace(sharp, text)
    found = contributions(sharp, seen, position=position, token=token)
    assert found.values.sum().item() == pytest.approx(seen.logits[position, token].item(), abs=1e-9)
    assert len(found.names) == len(set(found.names)) == len(found.values)


def test_a_term_is_what_the_logit_loses_without_its_part(sharp, text):
    """The scale of the norm held fixed, a stream without a head's slice is a logit without its term."""
    seen = trace(sharp, text)
    split = contributions(sharp, seen, position=-1, token=5)
    found = dict(zip(split.names, split.values.tolist(), strict=True))
    layer, head, width = 1, 1, sharp.config.n_embd // sharp.config.n_head
    y = (seen.attention[layer, head, -1] @ seen.values[layer, head]).clone()
    part = sharp.h[layer].attn.c_proj.weight[:, head * width : (head + 1) * width] @ y
    x = seen.residual[-1, -1]
    scale = 1 / (x.var(unbiased=False) + 1e-5).sqrt()

    def logit(stream):
        return ((stream - stream.mean()) * scale * sharp.ln_f.weight + sharp.ln_f.bias) @ sharp.wte.weight[5]

    assert found["layer 1 head 1"] == pytest.approx((logit(x) - logit(x - part)).item(), abs=1e-9)


MODERN = {
    "smear": True,
    "ngram": 3,
    "norm": "rms",
    "tied_head": False,
    "n_kv_head": 2,
    "qk_norm": True,
    "value_residual": True,
    "activation": "relu2",
}


def modern(tiny_config, **options):
    config = ModernConfig(**{**asdict(tiny_config), "n_head": 4}, **options)
    model = init_weights(build_model(config), seed=3).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return model


def test_modern_parts_sum_to_the_logit_too(tiny_config, text):
    model = modern(tiny_config, **MODERN)
    seen = trace(model, text)
    torch.testing.assert_close(seen.logits, model(text[None])[0])
    torch.testing.assert_close(model.logits(model.ln_f(seen.residual[-1])), seen.logits)
    for layer, block in enumerate(model.h):
        gathered = (seen.attention[layer] @ seen.values[layer]).transpose(0, 1).flatten(1)
        torch.testing.assert_close(block.attn.c_proj(gathered), seen.attn[layer])
    found = contributions(model, seen, position=3, token=5)
    assert found.values.sum().item() == pytest.approx(seen.logits[3, 5].item(), abs=1e-9)


@pytest.mark.parametrize(
    ("options", "reason"), [({"logit_softcap": 5.0}, "soft cap"), ({"stream_scales": True}, "scales")]
)
def test_modern_parts_that_make_no_sum_are_refused(tiny_config, text, options, reason):
    model = modern(tiny_config, **options)
    seen = trace(model, text)
    torch.testing.assert_close(model.logits(model.ln_f(seen.residual[-1])), seen.logits)
    with pytest.raises(UserError, match=reason):
        contributions(model, seen, position=3, token=5)


def test_a_stream_that_is_no_sum_is_not_split(sharp, text):
    seen = trace(sharp, text)
    seen.residual[-1] *= 1.5  # as a model would that scales its stream
    with pytest.raises(UserError, match="scales its residual stream"):
        contributions(sharp, seen, position=2, token=0)
