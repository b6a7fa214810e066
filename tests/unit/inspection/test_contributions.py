import pytest

from groundup.config.errors import UserError
from groundup.inspection.contributions import contributions
from groundup.inspection.trace import trace


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


def test_a_stream_that_is_no_sum_is_not_split(sharp, text):
    seen = trace(sharp, text)
    seen.residual[-1] *= 1.5  # as a model would that scales its stream
    with pytest.raises(UserError, match="scales its residual stream"):
        contributions(sharp, seen, position=2, token=0)
