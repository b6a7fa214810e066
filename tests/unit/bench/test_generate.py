import json
import math

import pytest

from groundup.bench import generate as module
from groundup.bench.contest import Timing
from groundup.bench.generate import Options, bench
from groundup.config.errors import UsageError, UserError
from groundup.config.model import GPTConfig

MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=24, vocab_size=11)


def test_the_figures_are_the_arithmetic_of_the_times(monkeypatch):
    def race(contestants, options, *, rounds, runs, warmup):
        assert (rounds, runs) == (3, 1)
        return {n: Timing([0.5 if n == "groundup" else 2.0] * rounds, 7_000_000) for n in contestants}

    monkeypatch.setattr(module, "race", race)
    monkeypatch.setattr(module, "copy_bandwidth", lambda device: 1e6)
    lines = []
    result = bench(Options(model=MODEL, prompt_tokens=4, new_tokens=8, device="cpu"), lines.append)
    assert result["contestants"]["groundup"] == {
        "tokens_per_sec": 16.0,
        "peak_memory_mb": 7,
        "times_our_time": 1.0,
    }
    assert result["contestants"]["transformers"]["times_our_time"] == 4
    assert math.isclose(result["limit_tokens_per_sec"], 1e6 / result["weight_bytes"], rel_tol=0.01)
    assert len(lines) == 2
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("contestant", [module._ours, module._transformers])
def test_contestants_draw_what_they_are_asked_for(contestant):
    work, peak = contestant(Options(model=MODEL, prompt_tokens=4, new_tokens=8, device="cpu"))
    work()
    assert peak() > 0


def test_bad_options(tmp_path):
    with pytest.raises(UsageError, match="fit into the context of 24 together, got 20 and 8"):
        Options(model=MODEL, prompt_tokens=20, new_tokens=8)
    with pytest.raises(UserError, match="is not a checkout of nanoGPT"):
        bench(Options(model=MODEL, prompt_tokens=4, new_tokens=8, nanogpt=tmp_path), print)
