"""One attention weight against the page of pure functions."""

import math

import pytest
import torch

from groundup.config.model import ModernConfig
from groundup.inspection.cell import explain_cell
from groundup.inspection.trace import trace
from groundup.model import reference


@pytest.mark.parametrize(("layer", "head", "row", "column"), [(0, 0, 5, 2), (1, 1, 7, 7), (1, 0, 0, 0), (0, 1, 15, 3)])
def test_every_number_is_the_reference_s(sharp, text, layer, head, row, column):
    w, config = sharp.state_dict(), ModernConfig.of(sharp.config)
    seen = trace(sharp, text)
    x = reference.norm(seen.residual[layer][None], w, f"h.{layer}.ln_1", config)
    D = config.n_embd // config.n_head
    q, k, v = (
        part.view(len(text), config.n_head, D)[:, head]
        for part in reference.linear(x[0], w, f"h.{layer}.attn.c_attn").chunk(3, -1)
    )
    cell = explain_cell(seen, layer=layer, head=head, row=row, column=column)
    scores = torch.stack([q[row] @ k[j] / math.sqrt(D) for j in range(row + 1)])
    weights = reference.softmax(scores)
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(cell.query, q[row], **close)
    torch.testing.assert_close(cell.key, k[column], **close)
    torch.testing.assert_close(cell.scores, scores, **close)
    torch.testing.assert_close(cell.products.sum() / math.sqrt(D), scores[column], **close)
    torch.testing.assert_close(cell.exponentials / cell.exponentials.sum(), weights, **close)
    torch.testing.assert_close(cell.taken, weights[column] * v[column], **close)
    assert cell.score == pytest.approx(float(scores[column]), abs=1e-10)
    assert cell.weight == pytest.approx(float(seen.attention[layer, head, row, column]), abs=1e-10)


@pytest.mark.parametrize("place", [(0, 0, 3, 4), (0, 2, 3, 3), (2, 0, 3, 3), (0, 0, 16, 0), (0, 0, 3, -1)])
def test_what_is_masked_or_not_there_has_no_weight(sharp, text, place):
    layer, head, row, column = place
    with pytest.raises(IndexError, match="no cell"):
        explain_cell(trace(sharp, text), layer=layer, head=head, row=row, column=column)
