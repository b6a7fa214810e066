"""One line as a model sees it."""

import json

import pytest
import torch
from tests.unit.inspection.test_detectors import looks_back

from groundup.inspection.detectors import head_scores, labels
from groundup.inspection.portrait import MOST_TOKENS, portrait
from groundup.inspection.trace import trace


def test_its_numbers_are_those_of_the_model(tiny_model, alphabet):
    idx = torch.tensor(alphabet.encode("to be or not"))
    seen = portrait(tiny_model, alphabet, idx)
    assert json.loads(json.dumps(seen)) == seen
    assert "".join(seen["tokens"]) == "to be or not"
    logp = tiny_model.eval()(idx[None])[0].log_softmax(-1).detach()
    assert seen["surprise"][0] is None
    for i, nats in enumerate(seen["surprise"][1:]):
        assert nats == pytest.approx(-float(logp[i, idx[i + 1]]), abs=1e-3)
    weights = trace(tiny_model, idx).attention[seen["layer"], seen["head"]]
    for i, row in enumerate(seen["attention"]):
        assert row == pytest.approx(weights[i, : i + 1].tolist(), abs=1e-3)
    assert seen["kind"] is None  # weights as they are drawn have no pattern


def test_a_head_is_named_as_elsewhere(alphabet):
    model = looks_back()
    seen = portrait(model, alphabet, torch.tensor(alphabet.encode("to be or not")))
    assert [[seen["kind"]]] == labels(head_scores(model)) == [["previous"]]


def test_a_long_text_is_cut_to_what_the_model_and_a_reader_take(tiny_model, alphabet):
    idx = torch.zeros(200, dtype=torch.long)
    assert len(portrait(tiny_model, alphabet, idx)["tokens"]) == min(MOST_TOKENS, tiny_model.config.block_size)
