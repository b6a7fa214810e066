import json

import psutil
import pytest

from forked import still_running
from groundup.bench import scaling as module
from groundup.bench.scaling import Options, bench
from groundup.config.errors import UsageError
from groundup.config.model import GPTConfig
from groundup.contestants import ours
from groundup.contestants.contest import Timing

MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, vocab_size=11)


@pytest.fixture
def raced(monkeypatch):
    """No process is started; every contestant takes its known time."""
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)

    def race(contestants, options, *, rounds, runs):
        one, several, apart = contestants
        seconds = {one: [0.1, 0.1, 0.3], several: [0.11, 0.125, 0.2], apart: [0.1, 0.1, 0.3]}
        return {name: Timing(each, 1) for name, each in seconds.items()}

    monkeypatch.setattr(module, "race", race)


def test_the_figures_are_the_arithmetic_of_the_times(raced):
    lines = []
    result = bench(Options(model=MODEL, micro_batch_size=4, processes=2), lines.append)
    assert list(result["tokens_per_sec"].values()) == [320, 512, 640]
    assert result["times_as_fast_by_round"] == [1.818, 1.6, 3.0]  # 2 x 0.1 / 0.11 and so on
    assert (result["times_as_fast"], result["most_possible"]) == (1.818, 2)
    assert (result["processes"], result["cores"]) == (2, 4)
    assert len(lines) == 3
    assert json.loads(json.dumps(result)) == result


@pytest.mark.parametrize("processes", [1, 5])
def test_more_processes_than_cores_are_refused(raced, processes):
    with pytest.raises(UsageError, match=f"at least 2 and at most the cores, 4; got {processes}"):
        Options(processes=processes)


def test_a_unit_of_work_is_a_step(raced, monkeypatch):
    monkeypatch.setattr(ours, "allocate_for_steps", lambda **how: None)
    stepped = []
    monkeypatch.setattr(module.Trainer, "train_step", lambda self: stepped.append(self.tokens_per_step))
    work, peak_memory = module._alone(Options(model=MODEL, micro_batch_size=2))
    work()
    work()
    assert stepped == [16, 16]
    assert peak_memory() > 0


@pytest.mark.slow
def test_two_processes_race_one_and_none_is_left():
    result = bench(Options(model=MODEL, micro_batch_size=2, rounds=2, steps=2), lambda line: None)
    assert all(speed > 0 for speed in result["tokens_per_sec"].values())
    left = [p for p in psutil.process_iter(["cmdline"]) if "groundup.bench.scaling" in (p.info["cmdline"] or [])]
    assert not still_running(left)
