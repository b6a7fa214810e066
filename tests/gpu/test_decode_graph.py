"""Decoding steps that are recorded as CUDA graphs draw what the CPU, and what steps without graphs, draw."""

import pytest
import torch

from groundup.config.generate import SamplingConfig
from groundup.config.model import GPTConfig, ModernConfig
from groundup.generation import graphs
from groundup.generation.engine import Engine
from groundup.generation.requests import Request
from groundup.model.build import build_model
from groundup.model.init import init_weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

SHAPE = {"n_layer": 3, "n_head": 4, "n_embd": 64, "block_size": 96, "vocab_size": 101}
CONFIGS = (GPTConfig(**SHAPE), ModernConfig(**SHAPE, position="rope"))
REQUESTS = [
    Request(prompt=(3, 1, 4), max_new_tokens=150, sampling=SamplingConfig(temperature=0)),
    Request(prompt=tuple(range(90)), max_new_tokens=40, sampling=SamplingConfig(top_k=5), n=3, seed=5),
    Request(prompt=(7,), max_new_tokens=30, sampling=SamplingConfig(top_p=0.9), n=2, stop_ids=frozenset({9})),
]


def model_of(config, device):
    """In float64, where rounding decides nothing; weights that look somewhere."""
    model = init_weights(build_model(config), seed=4).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p * 10 if p.dim() == 2 else p)
    return model.to(device).eval()


def texts(model, *, captured):
    engine = Engine(model, n_slots=5, chunk=16)
    if not captured:
        engine._slots._graphs = engine._slots._draws = None
    for request in REQUESTS:
        engine.submit(request)
    tokens = {}
    while engine.busy:
        for event in engine.tick():
            tokens.setdefault((event.request, event.choice), []).append(event.token)
    return tokens, engine


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_graphs_draw_the_same_tokens(config):
    on_gpu = model_of(config, "cuda")
    recorded, engine = texts(on_gpu, captured=True)
    assert any(step._recording._recorded is not None for step in engine._slots._graphs._steps.values())
    assert recorded == texts(on_gpu, captured=False)[0]
    assert recorded == texts(model_of(config, "cpu"), captured=False)[0]


def test_a_step_is_recorded_once_and_then_replayed(monkeypatch):
    runs = []
    run = graphs._Step._run
    monkeypatch.setattr(graphs._Step, "_run", lambda self: runs.append(None) or run(self))
    engine = Engine(model_of(CONFIGS[0], "cuda"), n_slots=1)
    engine.submit(Request(prompt=(3, 1, 4), max_new_tokens=55))
    while engine.busy:
        engine.tick()
    assert len(runs) == graphs.WARMUPS + 1
