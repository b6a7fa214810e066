"""A model of 8 bits is looked into with the numbers that it multiplies by."""

import pytest
import torch

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.inspection.contributions import contributions
from groundup.inspection.matrices import matrix_of
from groundup.inspection.neighbors import neighbors
from groundup.inspection.trace import trace


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_terms_sum_to_the_logit_however_the_weights_are_stored(tmp_path, tiny_model, alphabet, weights):
    with torch.no_grad():
        tiny_model.wte.weight[3] *= 50  # rows of very different scales
    save_model(tmp_path / "tiny", tiny_model, alphabet, {})
    model = load_model(tmp_path / "tiny", weights=weights).model
    idx = torch.tensor(alphabet.encode("hello world"))
    seen = trace(model, idx)
    found = contributions(model, seen, position=-1, token=3)
    torch.testing.assert_close(found.values.sum(), seen.logits[-1, 3].float(), rtol=1e-3, atol=1e-3)
    assert (found.names[-1] == "rounding to 8 bits") == (weights == "int8")
    if weights == "int8":
        assert 0 < found.values[-1].abs() < 0.02 * found.values.abs().sum()
    torch.testing.assert_close(matrix_of(model.wte), tiny_model.wte.weight.detach(), rtol=0.02, atol=0.02)
    ids, _ = neighbors(model, 3, k=3)
    assert ids.tolist() == neighbors(tiny_model, 3, k=3)[0].tolist()
