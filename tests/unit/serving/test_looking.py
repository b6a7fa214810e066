"""What the page is told, against the same computed here."""

import numpy as np
import pytest
import torch

from groundup.inspection.ablation import without
from groundup.inspection.trace import trace
from groundup.playground import analysis
from groundup.playground.offers import first_text
from groundup.playground.openapi import BODIES
from groundup.tokenizer.bpe_train import train_bpe
from groundup.tokenizer.char import CharTokenizer

TEXT = "hello world"


@pytest.fixture
def idx(alphabet):
    return torch.tensor(alphabet.encode(TEXT))


@pytest.fixture
def model(served):
    return served.loaded.model


def whole(what, body):
    """A body with a text to look at, where a text is looked at, unless it names tokens."""
    reads = "text" in BODIES[f"/api/{what}"].model_fields and "tokens" not in body
    return ({"text": TEXT} if reads else {}) | body


def ask(client, what, **body):
    answer = client.post(f"/api/{what}", json=whole(what, body))
    assert answer.status_code == 200, answer.text
    return answer


def test_logits_are_the_models(client, model, idx):
    got = torch.from_numpy(np.frombuffer(ask(client, "logits").content, "<f4").copy())
    torch.testing.assert_close(got, model(idx[None])[0, -1].detach(), rtol=1e-5, atol=1e-5)


def test_attention_is_the_models_in_steps_of_sixteen_bits(client, model, idx):
    raw = ask(client, "attention", layer=1).content
    seen = trace(model, idx)
    H, T = seen.attention.shape[1:3]
    weights = np.frombuffer(raw[: 2 * H * T * T], "<u2").reshape(H, T, T) / 65535
    lengths = np.frombuffer(raw[2 * H * T * T :], "<f4").reshape(H, T)
    np.testing.assert_allclose(weights, seen.attention[1].numpy(), atol=1e-5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=T / 65535)
    np.testing.assert_allclose(lengths, seen.values[1].norm(dim=-1).numpy(), rtol=1e-5)


def test_the_last_row_of_the_lens_is_the_output(client, model, idx):
    answer = ask(client, "lens").json()
    probabilities = model(idx[None])[0].softmax(-1).detach()
    assert len(answer["top"]) == 3
    for t in range(len(idx)):
        assert answer["top"][-1][t][0] == probabilities[t].argmax()
        assert answer["probability"][-1][t][0] == pytest.approx(probabilities[t].max().item(), rel=1e-4)


def test_surprise_sums_to_the_loss(client, model, idx):
    answer = ask(client, "surprise").json()
    loss = torch.nn.functional.cross_entropy(model(idx[None])[0, :-1], idx[1:])
    assert np.mean(answer["loss"]) == pytest.approx(loss.item(), rel=1e-4)


def test_pushes_sum_to_the_logit(client):
    answer = ask(client, "contributions", token=3, position=4).json()
    assert sum(answer["values"]) == pytest.approx(answer["logit"], abs=1e-3)


def test_switching_nothing_off_changes_nothing(client):
    answer = ask(client, "ablation").json()
    assert answer["whole"] == answer["without"]
    changed = ask(client, "ablation", heads=[[0, 1]], mlps=[1], instead="zero").json()
    assert changed["whole"] == answer["whole"]
    assert changed["without"]["loss"] != changed["whole"]["loss"]


def test_a_text_is_written_with_all_parts_and_without_some(client, model, idx, alphabet):
    parts = {"heads": [[0, 1]], "mlps": [1]}
    told = ask(client, "writing", **parts, max_tokens=5, temperature=0).json()
    for name, off in (("whole", {}), ("without", {"heads": [(0, 1)], "mlps": [1]})):
        ids = idx.tolist()
        for _ in range(5):
            with torch.no_grad(), without(model, **off):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        assert told[name] == alphabet.decode(ids[-5:])
    drawn = [ask(client, "writing", seed=seed, temperature=1).json() for seed in (3, 3, 4)]
    assert drawn[0]["whole"] == drawn[0]["without"]  # nothing is off: the same random numbers draw the same
    assert len(drawn[0]["whole"]) == 24  # beyond the context of 16
    assert drawn[0] == drawn[1] != drawn[2]


def test_heads_neighbors_facts_words_and_a_run_that_is_not_there(client):
    scores = client.get("/api/heads").json()["scores"]
    assert np.shape(scores["induction"]) == (2, 2)
    assert np.shape(ask(client, "importance").json()["growth"]) == (2, 2)
    assert 5 not in ask(client, "neighbors", token=5).json()["tokens"]
    assert client.get("/api/facts").json()["models"][0]["n_layer"] == 2
    assert client.get("/api/facts").json()["models"][0]["first_text"] == "romeo\no "
    assert client.get("/api/vocabulary").json()["tokens"][:2] == ["\n", " "]
    assert client.get("/api/run").json()["train"] == []


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        (train_bpe(["hello"], 257), "ROMEO:\nO, "),
        (CharTokenizer("\n ,:EMOR"), "ROMEO:\nO, "),
        (CharTokenizer("\nEMORemor"), "ROMEO\nO"),
        (CharTokenizer(" emor", separates=True), "romeoo "),
        (CharTokenizer("\n 012äéîöüßñçøå"), "äéîöüßñç"),
        (CharTokenizer("\n 01"), "\n 01"),
    ],
)
def test_a_first_text_is_one_that_the_model_knows(tokenizer, text):
    assert first_text(tokenizer) == text
    assert tokenizer.encode(text)


@pytest.mark.parametrize(
    ("what", "body", "says"),
    [
        ("logits", {"text": "a" * 17}, "1 to 16 tokens can be looked at, got 17"),
        ("logits", {"tokens": []}, "got 0"),
        ("logits", {"tokens": [27]}, "27 ids, got 27"),
        ("logits", {"text": "Ä"}, "Ä"),
        ("attention", {"layer": 2}, "layers 0 to 1"),
        ("attention", {"layer": -1}, "layer"),
        ("ablation", {"heads": [[0, 2]]}, "2 layers of 2 heads"),
        ("writing", {"mlps": [2]}, "2 layers of 2 heads"),
        ("contributions", {"position": 11}, "11 tokens, got 11"),
        ("contributions", {"token": 27}, "27 ids, got 27"),
        ("neighbors", {"token": 27}, "27 ids, got 27"),
        ("lens", {"model": "x"}, 'there is no model "x"'),
    ],
)
def test_what_cannot_be_looked_at_is_said(client, what, body, says):
    answer = client.post(f"/api/{what}", json=whole(what, body))
    assert answer.status_code in (400, 404)
    assert says in answer.json()["error"]["message"]


def test_a_cell_is_the_weight_that_attention_shows(client, model, idx):
    seen = trace(model, idx)
    cell = ask(client, "cell", layer=1, head=1, row=7, column=3).json()
    assert cell["weight"] == pytest.approx(seen.attention[1, 1, 7, 3].item(), rel=1e-4)
    assert cell["score"] == pytest.approx(sum(cell["products"]) / cell["width"] ** 0.5, rel=1e-3)
    assert len(cell["scores"]) == 8
    assert cell["masked"] == 3
    assert client.post("/api/cell", json={"text": TEXT, "row": 3, "column": 4}).status_code == 400
    assert client.post("/api/cell", json={"text": TEXT, "row": 3, "column": 1, "head": 2}).status_code == 400


def test_slots_are_told_tick_by_tick(client):
    answer = client.post("/v1/completions", json={"prompt": "hello", "max_tokens": 3, "n": 2, "seed": 1})
    assert answer.status_code == 200
    told = client.get("/api/slots").json()
    assert (told["n_slots"], told["waiting"]) == (16, 0)
    read = {}
    for _number, _start, seconds, lanes in told["rounds"]:
        assert seconds > 0
        for slot, request, choice, start, n_read in lanes:
            read.setdefault((request, choice), []).append((slot, start, n_read))
    first, second = read[1, 0], read[1, 1]
    assert [(start, n) for _, start, n in first] == [(0, 5), (5, 1), (6, 1)]  # the prompt, then all but the last token
    assert [(start, n) for _, start, n in second] == [(4, 1), (5, 1), (6, 1)]  # the prompt is copied but for its end
    assert {slot for slot, *_ in first}.isdisjoint(slot for slot, *_ in second)
    last = told["rounds"][-1][0]
    assert client.get(f"/api/slots?after={last}").json()["rounds"] == []
    assert client.get("/api/slots?after=x").status_code == 400


def test_what_json_cannot_say_is_an_error_in_words(client, model):
    short = client.post("/api/importance", json={"text": "a"})
    assert (short.status_code, short.json()["error"]["message"]) == (
        400,
        "the loss of a text needs at least 2 tokens, got 1",
    )
    with torch.no_grad():
        model.wpe.weight[5] = torch.nan
    for what in ("surprise", "lens", "ablation", "importance", "contributions"):
        answer = client.post(f"/api/{what}", json={"text": TEXT})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "not_finite")


def test_a_text_that_grows_shrinks_and_changes_has_the_logits_of_its_own(client, model, alphabet):
    """Whatever of it was read before."""
    for text in ("a", "abcdefgh", "abcdefghij", "abcd", "abxd", "abxd", "bbxdefghijklmnop", "a"):
        got = torch.from_numpy(np.frombuffer(ask(client, "logits", text=text).content, "<f4").copy())
        expected = model(torch.tensor([alphabet.encode(text)]))[0, -1].detach()
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_what_views_share_is_computed_once_and_never_for_another_text(client, model, monkeypatch):
    texts = []
    monkeypatch.setattr(analysis, "trace", lambda model, idx: (texts.append(idx.tolist()), trace(model, idx))[1])
    for what in ("attention", "lens", "surprise", "contributions", "attention"):
        ask(client, what)
    assert len(texts) == 1
    lens = ask(client, "lens", text="another").json()
    assert len(lens["top"][0]) == len("another")
    ask(client, "lens", text="a third")
    ask(client, "surprise")  # of the first again, which is no longer kept
    assert len(texts) == 4


def test_the_heads_of_one_layer_matter_as_they_do_among_all(client, served):
    whole = ask(client, "importance").json()["growth"]
    assert [ask(client, "importance", layer=layer).json()["growth"] for layer in (0, 1)] == [[row] for row in whole]
    refused = client.post("/api/importance", json={"text": TEXT, "layer": 2})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "layer")
