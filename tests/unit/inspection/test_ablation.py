import copy

import pytest
import torch

from groundup.config.errors import UsageError
from groundup.inspection.ablation import importances, without


def test_a_head_that_is_zero_is_a_model_without_its_columns(sharp, text):
    sharp.eval()
    cut = copy.deepcopy(sharp)
    width = sharp.config.n_embd // sharp.config.n_head
    with torch.no_grad():
        cut.h[1].attn.c_proj.weight[:, width : 2 * width] = 0
        expected, whole = cut(text[None]), sharp(text[None])
        with without(sharp, heads=[(1, 1)], instead="zero"):
            torch.testing.assert_close(sharp(text[None]), expected, rtol=0, atol=1e-12)
        assert torch.equal(sharp(text[None]), whole)


def test_an_mlp_that_is_zero_is_a_model_without_its_output(sharp, text):
    sharp.eval()
    cut = copy.deepcopy(sharp)
    with torch.no_grad():
        cut.h[0].mlp.c_proj.weight.zero_()
        cut.h[0].mlp.c_proj.bias.zero_()
        with without(sharp, mlps=[0], instead="zero"):
            torch.testing.assert_close(sharp(text[None]), cut(text[None]), rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_mean_is_over_the_positions_of_the_text(sharp, text):
    sharp.eval()
    seen = []
    handle = sharp.h[0].attn.c_proj.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    sharp(text[None])
    handle.remove()
    (before,) = seen
    width = sharp.config.n_embd // sharp.config.n_head
    with without(sharp, heads=[(0, 0)]):
        handle = sharp.h[0].attn.c_proj.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
        sharp(text[None])
        handle.remove()
    after = seen[1]
    torch.testing.assert_close(after[..., :width], before[..., :width].mean(1, keepdim=True).expand(-1, len(text), -1))
    assert torch.equal(after[..., width:], before[..., width:])


@pytest.mark.parametrize("instead", ["zero", "mean"])
def test_importance_is_the_growth_of_the_loss_of_the_whole_text(sharp, text, instead):
    (found,) = importances(sharp, text, [(0, 1)], instead=instead)
    sharp.eval()

    @torch.no_grad()
    def loss():
        return torch.nn.functional.cross_entropy(sharp(text[None])[0, :-1], text[1:])

    whole = loss()
    with without(sharp, heads=[(0, 1)], instead=instead):
        assert found == pytest.approx((loss() - whole).item(), abs=1e-6)


@pytest.mark.parametrize("part", [{"heads": [(2, 0)]}, {"heads": [(0, 2)]}, {"mlps": [-1]}])
def test_parts_that_are_not_there_are_named(sharp, part):
    with pytest.raises(UsageError, match="2 layers of 2 heads"), without(sharp, **part):
        pass
