import json
import statistics
import sys

import pytest

from groundup.bench import memory as module
from groundup.bench.memory import Options, bench
from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.contestants.contest import Timing
from groundup.planner.memory import Arithmetic, training_memory

MODEL = GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=11)


def test_every_size_is_a_row_and_large_ones_are_computed_again(monkeypatch):
    seen = []

    def race(contestants, case, *, rounds, runs, warmup):
        (name,) = contestants
        seen.append((case.setting.micro_batch_size, case.setting.recompute))
        return {name: Timing([0.5], 1000 * case.setting.micro_batch_size)}

    monkeypatch.setattr(module, "race", race)
    lines = []
    result = bench(Options(model=MODEL, micro_batch_sizes=(1, 2), recompute_from=2, device="cpu"), lines.append)
    assert seen == [(1, False), (2, False), (2, True)]
    assert [row["measured_bytes"] for row in result["rows"]] == [1000, 2000, 2000]
    how = Arithmetic(cpu=True, kernels=module.load_training_kernels(lambda _: None).lanes > 0)
    planned = [training_memory(MODEL, how, micro_batch_size=b, recompute=r, accumulates=False).total for b, r in seen]
    assert [row["planned_bytes"] for row in result["rows"]] == planned
    assert len(lines) == 3
    assert json.loads(json.dumps(result)) == result


def test_parts_are_settings_that_differ_by_what_is_counted(monkeypatch):
    seen = []

    def race(contestants, case, *, rounds, runs, warmup):
        seen.append(case.setting)
        return dict.fromkeys(contestants, Timing([0.5], 1000))

    monkeypatch.setattr(module, "race", race)
    result = bench(Options(settings="parts", device="cpu"), lambda line: None)
    assert [row["setting"] for row in result["rows"]] == [setting.name for setting in seen]
    assert len({setting.name for setting in seen}) == len(seen) >= 8
    assert {setting.recompute for setting in seen} == {setting.model.dropout > 0 for setting in seen} == {True, False}
    assert {setting.model.kind for setting in seen} == {"gpt", "modern"}
    assert {setting.optim.name for setting in seen} == {"adamw", "muon"}


def test_what_does_not_fit_says_how_much_it_needs(monkeypatch):
    def race(*_, **__):
        raise UserError("the contestant 1 x 16 died")

    monkeypatch.setattr(module, "race", race)
    with pytest.raises(UserError, match=r"died; it needs 0\.\d GB: name smaller --micro-batch-sizes"):
        bench(Options(model=MODEL, device="cpu"), lambda line: None)


def assert_planned(rows, again):
    """What is not within a tenth is measured twice more, and the median counts: each run has other holes."""
    for n, row in enumerate(rows):
        measured, planned = [row["measured_bytes"]], pytest.approx(row["planned_bytes"], rel=0.1)
        if measured[0] != planned:
            measured += [again(n)["measured_bytes"] for _ in range(2)]
        assert statistics.median(measured) == planned, (row["setting"], measured)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the planner's holes and blocks are glibc's")
@pytest.mark.parametrize(("n_layer", "n_embd"), [(6, 192), (4, 256)])
def test_the_peak_of_a_process_of_its_own_is_what_was_planned(n_layer, n_embd):
    model = GPTConfig(n_layer=n_layer, n_head=n_embd // 64, n_embd=n_embd, block_size=256, vocab_size=65)
    options = Options(model=model, micro_batch_sizes=(8,), device="cpu", precision="fp32")
    plain, again = bench(options, lambda line: None)["rows"]
    assert again["measured_bytes"] < plain["measured_bytes"] / 2
    assert_planned((plain, again), lambda n: bench(options, lambda line: None)["rows"][n])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the planner's holes and blocks are glibc's")
def test_the_peaks_of_all_parts_are_about_what_was_planned(monkeypatch):
    options, settings = Options(settings="parts", device="cpu", precision="fp32"), module.parts()

    def again(n):
        monkeypatch.setattr(module, "parts", lambda: [settings[n]])
        return bench(options, lambda line: None)["rows"][0]

    assert_planned(bench(options, lambda line: None)["rows"], again)
