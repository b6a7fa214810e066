"""Decoding that reads the head in 8 bits first, against decoding that reads all of it."""

import pytest
import torch

import needs
from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig, ModernConfig
from groundup.generation.engine import Engine
from groundup.generation.requests import Request
from groundup.generation.sampling import Row, n_decisive
from groundup.inference.screened import LONGEST_PAUSE, ScreenedHead, screened_head
from groundup.inference.weights import StoredHead, use_weights
from groundup.kernels.compiled import load_kernels
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.runtime.stored import PlainKernels

pytestmark = needs.compiler
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 64}
LARGE = {**SHAPE, "vocab_size": 66_000}
"""4.2 million weights."""
GREEDY, TOP_K = SamplingConfig(temperature=0), SamplingConfig(temperature=0.8, top_k=40)
ANY = SamplingConfig(temperature=0.8)


def stored(config, weights="fp32", kernels=None):
    model = init_weights(build_model(config), seed=3).eval()
    use_weights(model, weights, kernels or load_kernels(lambda _: None))
    return model


@pytest.fixture(scope="module")
def model():
    return stored(GPTConfig(**LARGE))


@pytest.fixture
def counted(monkeypatch):
    """How many logits each call found: None where there were too many."""
    found, largest = [], ScreenedHead.largest

    def count(self, hidden, k):
        logits = largest(self, hidden, k)
        found.append(None if logits is None else int(logits.isfinite().sum()))
        return logits

    monkeypatch.setattr(ScreenedHead, "largest", count)
    return found


def tokens(model, *requests, screened=True):
    engine = Engine(model, n_slots=4)
    assert engine._slots._head is not None
    if not screened:
        engine._slots._head = None
    for request in requests:
        engine.submit(request)
    told = []
    while engine.busy:
        told += [(event.request, event.choice, event.token, event.score) for event in engine.tick()]
    return told


def request(sampling, seed=0, **more):
    return Request(prompt=(5, 9, 5, 9, 5), max_new_tokens=12, sampling=sampling, seed=seed, **more)


@pytest.mark.parametrize("weights", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("sampling", [GREEDY, TOP_K, SamplingConfig(top_k=300, top_p=0.9, min_p=0.01)])
def test_the_tokens_are_those_of_the_whole_head(sampling, weights, counted):
    model = stored(GPTConfig(**LARGE), weights)
    asked = [request(sampling, seed, n=2) for seed in (0, 1)]
    assert tokens(model, *asked) == tokens(model, *asked, screened=False)
    assert 0 < max(filter(None, counted)) < 20_000


def test_texts_with_different_needs_draw_together(model, counted):
    asked = [request(GREEDY), request(TOP_K), request(TOP_K, seed=7)]
    assert tokens(model, *asked) == tokens(model, *asked, screened=False)
    assert 120 <= max(filter(None, counted)) < 20_000  # all three with as many as the neediest


@pytest.mark.parametrize(
    ("sampling", "n_top", "k"),
    [
        (GREEDY, None, 1),
        (TOP_K, None, 40),
        (ANY, None, 0),
        (SamplingConfig(top_p=0.9), None, 0),
        (SamplingConfig(min_p=0.1), None, 0),
        (GREEDY, 0, 0),
        (SamplingConfig(top_k=5, repetition_penalty=1.1), None, 0),
        (SamplingConfig(top_k=5, presence_penalty=1), None, 0),
        (SamplingConfig(temperature=0, frequency_penalty=1), None, 0),
        (SamplingConfig(temperature=0, logit_bias=((3, 1.0),)), None, 0),
    ],
)
def test_all_logits_are_needed_where_others_than_the_largest_count(sampling, n_top, k):
    row = Row(config=sampling, generator=torch.Generator(), n_top=n_top)
    assert n_decisive([row]) == k
    assert n_decisive([row, Row(config=ANY, generator=torch.Generator())]) == 0
    assert n_decisive([row, Row(config=TOP_K, generator=torch.Generator())]) == (40 if k else 0)


def test_scores_are_of_all_logits(model, counted):
    asked = request(GREEDY, n_top=2)
    assert tokens(model, asked) == tokens(model, asked, screened=False)
    assert not counted


@pytest.mark.parametrize(
    "make",
    [
        lambda: stored(GPTConfig(**SHAPE, vocab_size=500)),
        lambda: stored(GPTConfig(**LARGE), "int8"),
        lambda: stored(GPTConfig(**LARGE), kernels=PlainKernels()),
        lambda: stored(ModernConfig(**LARGE, logit_softcap=20.0)),
        lambda: init_weights(build_model(GPTConfig(**LARGE)), seed=0),
    ],
    ids=["small", "8 bits", "no compiler", "bounded logits", "ordinary"],
)
def test_other_heads_are_read_whole(make):
    assert screened_head(make()) is None


def test_a_head_of_its_own_is_found():
    model = stored(ModernConfig(**LARGE, tied_head=False)).eval()
    head, hidden = screened_head(model), torch.randn(1, 64)
    assert head.largest(hidden, 1).argmax() == model.logits(hidden).argmax()


def test_many_rows_and_many_logits_are_left_to_the_product(model):
    head = screened_head(model)
    assert head.largest(torch.randn(8, 64), 1) is not None
    assert head.largest(torch.randn(9, 64), 1) is None
    assert head.largest(torch.randn(1, 64), 1031) is not None
    assert head.largest(torch.randn(1, 64), 1032) is None


def test_whoever_watches_the_head_sees_every_logit(model):
    head, stored_head = screened_head(model), next(part for part in model.modules() if isinstance(part, StoredHead))
    seen = []
    handle = stored_head.register_forward_hook(lambda *call: seen.append(call[-1].shape))
    assert head.largest(torch.randn(1, 64), 1) is None
    tokens(model, request(GREEDY))
    handle.remove()
    assert seen[0] == (1, 66_000)
    assert head.largest(torch.randn(1, 64), 1) is not None


def test_where_logits_cannot_be_told_apart_fewer_and_fewer_are_tried(model, monkeypatch):
    head, calls, tried = screened_head(model), [], []
    monkeypatch.setattr(type(head._kernels), "largest", lambda *args: tried.append(len(calls)))
    hidden = torch.randn(1, 64)
    for _ in range(1000):
        assert head.largest(hidden, 1) is None
        calls.append(1)
    assert tried == [0, 2, 6, 14, 30, 62, 126, 254, 510, 766]
    monkeypatch.undo()
    for _ in range(LONGEST_PAUSE + 1):
        found = head.largest(hidden, 1)
    assert found is not None
    assert head.largest(hidden, 1) is not None
