"""On a machine that is said to have an Apple GPU: nothing is computed there."""

import types

import pytest
import torch

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.config.presets import RECIPES
from groundup.distributed.ranks import World
from groundup.loop import small_models
from groundup.loop.small_models import faster_device, step_seconds
from groundup.training import setup as under_test
from groundup.training.setup import SetupRequest

TINY = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=16, vocab_size=27)
MPS = torch.device("mps")


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """Seconds of a step by device, and what was timed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    found = types.SimpleNamespace(mps=2.0, cpu=1.0, asked=[])

    def measure(device, shape, samples):
        found.asked.append((device.type, samples))
        return getattr(found, device.type)

    monkeypatch.setattr(small_models, "step_seconds", measure)
    return found


@pytest.mark.parametrize(("cpu", "taken"), [(1.0, "cpu"), (3.0, "mps")])
def test_a_small_model_goes_where_its_step_is_faster_and_that_is_remembered(timed, cpu, taken):
    timed.cpu = cpu
    for _ in range(2):
        assert faster_device(MPS, TINY, samples=64).type == taken
    assert sorted(timed.asked) == [("cpu", 32), ("mps", 32)]
    timed.cpu = 5.0  # another number of sequences is another question
    assert faster_device(MPS, TINY, samples=8).type == "mps"


def test_what_others_left_in_the_file_is_passed_over(timed, tmp_path):
    assert faster_device(MPS, TINY, samples=64).type == "cpu"
    path = tmp_path / "groundup" / "devices.json"
    path.write_text(path.read_text().replace('"cpu"', '"abacus"'))
    assert faster_device(MPS, TINY, samples=64).type == "cpu"
    assert len(timed.asked) == 4


def test_a_large_model_is_not_timed(timed):
    assert faster_device(MPS, GPTConfig(vocab_size=50257), samples=64) == MPS
    assert timed.asked == []


def request(device="auto", *, world=None, saved=None):
    config = RECIPES["shakespeare"]
    config = under_test.io.from_dict(type(config), under_test.io.to_dict(config) | {
        "runtime": under_test.io.to_dict(config.runtime) | {"device": device}})  # fmt: skip
    return SetupRequest(config=config, shape=TINY, world=world or World(), parallel="none", say=print, saved=saved)


def test_only_auto_asks_and_only_once_in_a_run(timed):
    assert under_test._device(request()).type == "cpu"
    timed.asked.clear()
    assert under_test._device(request("mps")).type == "mps"
    assert under_test._device(request(world=World(rank=0, size=2))).type == "mps"
    for device in ("mps", "cpu"):
        assert under_test._device(request(saved=types.SimpleNamespace(device=device))).type == device
    assert timed.asked == []


def test_a_run_that_moved_to_a_machine_without_its_device_goes_on(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError):
        under_test._device(request("cuda"))
    assert under_test._device(request(saved=types.SimpleNamespace(device="cuda"))).type in ("cpu", "mps")


def test_a_step_can_be_timed_here():
    assert step_seconds(torch.device("cpu"), TINY, 2) > 0
