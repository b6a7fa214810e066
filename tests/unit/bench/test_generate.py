import json
import math

import pytest
import torch

from groundup.bench import generate as module
from groundup.bench.generate import Options, bench
from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig
from groundup.contestants.contest import Timing
from groundup.kernels.compiled import CompiledKernels

MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=24, vocab_size=1000)
N_HEAD = 1000 * 16


@pytest.mark.parametrize("min_weights", [N_HEAD, N_HEAD + 1])
def test_the_figures_are_the_arithmetic_of_the_times(monkeypatch, min_weights):
    def race(contestants, given, *, rounds, runs, warmup, together):
        assert (rounds, runs) == (3, 1)
        return {n: Timing([0.5 if n.startswith("groundup") else 2.0] * rounds, 7_000_000) for n in contestants}

    monkeypatch.setattr(module, "race", race)
    monkeypatch.setattr(module, "write_models", lambda *what: None)
    monkeypatch.setattr(module, "read_bandwidth", lambda kernels: 1e7)
    monkeypatch.setattr(module, "load_kernels", lambda say: object.__new__(CompiledKernels))
    monkeypatch.setattr(module, "MIN_WEIGHTS", min_weights)
    lines = []
    result = bench(Options(model=MODEL, prompt_tokens=4, new_tokens=8, device="cpu"), lines.append)
    ours, int8 = result["contestants"]["groundup"], result["contestants"]["groundup int8"]
    assert (ours["tokens_per_sec"], ours["peak_memory_mb"], ours["times_our_time"]) == (16.0, 7, 1.0)
    assert math.isclose(ours["share_of_read_limit"], 16 * 4 * result["weights"] / 1e7, abs_tol=1e-3)
    read = 4 * result["weights"] - (3 * N_HEAD if min_weights == N_HEAD else 0)  # a head of 8 bits, or of 32
    assert math.isclose(ours["share_of_bandwidth"], 16 * read / 1e7, abs_tol=1e-3)
    assert math.isclose(int8["share_of_read_limit"], 16 * result["weights"] / 1e7, abs_tol=1e-3)
    assert result["contestants"]["transformers"]["times_our_time"] == 4
    assert json.loads(json.dumps(result)) == result


def test_contestants_draw_what_they_are_asked_for(tmp_path):
    options = Options(model=MODEL, prompt_tokens=4, new_tokens=8, samples=2, device="cpu")
    contestants = module._contestants(options, torch.device("cpu"), print)
    module.write_models(tmp_path, MODEL, contestants)
    for factory in contestants.values():
        work, peak = factory(module.Race(options, tmp_path))
        work()
        assert peak() > 0


def test_bad_options():
    with pytest.raises(UsageError, match="fit into the context of 24 together, got 20 and 8"):
        Options(model=MODEL, prompt_tokens=20, new_tokens=8)


def test_a_peer_that_is_not_installed_is_said_and_does_not_run(monkeypatch):
    lines = []
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "ctranslate2" else True)
    contestants = module._contestants(
        Options(model=MODEL, prompt_tokens=4, new_tokens=8), torch.device("cpu"), lines.append
    )
    assert "CTranslate2" not in contestants
    assert "transformers" in contestants
    assert [line for line in lines if "ctranslate2 is not installed" in line] == lines
    assert lines


def test_what_is_given_to_a_gpu():
    contestants = module._contestants(Options(model=MODEL, prompt_tokens=4, new_tokens=8), torch.device("cuda"), print)
    assert list(contestants) == ["groundup", "groundup fp16", "transformers", "transformers fp16"]
