import json
import math

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from groundup.bench import train as module
from groundup.bench.train import Options, bench
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.contestants import ours
from groundup.contestants.contest import Timing
from groundup.planner.flops import flops_per_token
from groundup.planner.params import count_parameters
from groundup.runtime.measure import GEMM_SHAPE

MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=11)


@pytest.fixture
def raced(monkeypatch):
    """No process is started; every contestant takes its known time."""
    seen = {}

    def race(contestants, options, *, rounds, runs, starts):
        seen.update(contestants=contestants, rounds=rounds, runs=runs, starts=starts)
        seconds = {"groundup": 0.01, "matrix products alone": 0.5}
        return {name: Timing([seconds.get(name, 0.02)] * rounds, 5_000_000) for name in contestants}

    monkeypatch.setattr(module, "race", race)
    return seen


def test_the_figures_are_the_arithmetic_of_the_times(raced):
    lines = []
    result = bench(Options(model=MODEL, micro_batch_size=4, device="cpu", starts=2, rounds=3, steps=7), lines.append)
    assert (raced["starts"], raced["rounds"], raced["runs"]) == (2, 3, 7)
    peak = 2 * math.prod(GEMM_SHAPE) / 0.5
    ours = result["contestants"]["groundup"]
    assert ours["tokens_per_sec"] == 4 * 8 / 0.01
    assert ours["ms_per_step"] == 10
    assert ours["mfu"] == pytest.approx(3200 * flops_per_token(MODEL, 8) / peak, abs=1e-4)
    assert ours["peak_memory_mb"] == 5
    assert ours["times_our_time"] == 1
    assert result["parameters"] == count_parameters(MODEL)
    assert result["peak_flops"] == peak
    assert "matrix products alone" not in result["contestants"]
    assert len(lines) == len(result["contestants"])
    assert json.loads(json.dumps(result)) == result


def test_peers_are_raced_beside_us_where_they_are(raced, monkeypatch, tmp_path):
    (tmp_path / "model.py").touch()
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: object())
    result = bench(Options(model=MODEL, device="cpu", nanogpt=tmp_path), lambda line: None)
    assert list(result["contestants"]) == ["groundup", "nanoGPT", "transformers"]
    assert result["contestants"]["nanoGPT"]["times_our_time"] == 2
    result = bench(Options(model=MODEL, device="cpu", nanogpt=tmp_path, precision="bf16"), lambda line: None)
    assert list(result["contestants"]) == ["groundup", "nanoGPT", "nanoGPT fp32", "transformers"]
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    result = bench(Options(model=MODEL, device="cpu"), lambda line: None)
    assert list(result["contestants"]) == ["groundup"]


@pytest.mark.parametrize("flags", [{"device": "tpu"}, {"precision": "fp8"}])
def test_what_nobody_has_is_refused_before_anything_runs(raced, flags):
    with pytest.raises(UserError, match="must be one of"):
        bench(Options(**flags), lambda line: None)
    assert raced == {}


@pytest.mark.parametrize("contestant", ["_ours", "_transformers"])
def test_a_unit_of_work_is_a_whole_training_step(contestant, monkeypatch):
    """Weights change; in this process and only for a few steps."""
    if contestant == "_transformers":
        pytest.importorskip("transformers")
    monkeypatch.setattr(ours, "TOKENS", 1000)
    monkeypatch.setattr(ours, "allocate_for_steps", lambda **how: None)
    stepped = []
    hook = register_optimizer_step_post_hook(lambda *_: stepped.append(1))
    try:
        work, peak_memory = getattr(module, contestant)(Options(model=MODEL, micro_batch_size=2, device="cpu"))
        for _ in range(3):
            work()
    finally:
        hook.remove()
    assert len(stepped) == 3
    assert peak_memory() > 0
