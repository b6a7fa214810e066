"""Steps of fixed shape compute what steps of the shape at hand do; what is recorded is tested on a GPU (tests/gpu)."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig, ModernConfig
from groundup.generation import graphs
from groundup.generation.engine import Engine
from groundup.generation.graphs import DrawGraphs, StepGraphs
from groundup.generation.requests import Request
from groundup.model.build import build_model
from groundup.model.init import init_weights

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=24, vocab_size=31)


NGRAMS = dataclasses.replace(ModernConfig.of(CONFIG), ngram=3, ngram_rows=99)


@pytest.fixture(scope="module", params=[CONFIG, NGRAMS], ids=["gpt2", "n-grams"])
def model(request):
    model = init_weights(build_model(request.param), seed=4).double().eval()
    with torch.no_grad():
        if request.param is NGRAMS:
            model.ngrams.weight.normal_(std=0.02, generator=torch.Generator().manual_seed(5))
        for p in model.parameters():
            p.copy_(p * 20 if p.dim() == 2 else p)
    return model


def texts(model, requests, *, fixed):
    engine = Engine(model, n_slots=5, chunk=4)
    if fixed:
        engine._slots._graphs = StepGraphs(model, engine._slots._cache)
        engine._slots._draws = DrawGraphs(model, 5)
    for request in requests:
        engine.submit(request)
    tokens = {}
    while engine.busy:
        for event in engine.tick():
            tokens.setdefault((event.request, event.choice), []).append(event.token)
    return tokens


requests = st.lists(
    st.builds(
        Request,
        prompt=st.lists(st.integers(0, 30), min_size=1, max_size=20).map(tuple),
        max_new_tokens=st.integers(1, 40),
        n=st.integers(1, 3),
        sampling=st.sampled_from([SamplingConfig(temperature=0), SamplingConfig(top_k=5)]),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None)
@given(requests)
def test_fixed_steps_draw_the_same_tokens(model, requests):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "MIN_REACH", 4)
        assert texts(model, requests, fixed=True) == texts(model, requests, fixed=False)


def test_a_text_meets_few_shapes(model, monkeypatch):
    monkeypatch.setattr(graphs, "MIN_REACH", 4)
    engine = Engine(model, n_slots=3)
    steps = engine._slots._graphs = StepGraphs(model, engine._slots._cache)
    engine.submit(Request(prompt=(1,), max_new_tokens=100, n=3))
    while engine.busy:
        engine.tick()
    assert {reach for _, reach in steps._steps} == {4, 8, 16, 24}
    assert {rows for rows, _ in steps._steps} <= {1, 2, 3}
