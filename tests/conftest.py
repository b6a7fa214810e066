"""Small things that many tests need."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from forked import shorten
from groundup.config.model import GPTConfig
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.tokenizer.char import CharTokenizer

# Machines that test are busy: how long something takes says nothing about it, and commands that a test starts would
# choose fewer threads at one time than at another, and say so.
os.environ |= {"WANDB__SERVICE_WAIT": "240", "WANDB_INIT_TIMEOUT": "240", "OMP_NUM_THREADS": "1"}
# A shell's `&` and nohup start what they run deaf to signals, and the processes of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
settings.register_profile("groundup", deadline=None)
settings.load_profile("groundup")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With `--dist loadgroup`: see one_process.py."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from one_process import OneProcess

    return OneProcess(config, log)


@pytest.fixture(autouse=True)
def _one_thread_and_same_defaults():
    """Tests are small: threads only get in each other's way. What a test changes globally is put back.

    pytest-randomly seeds what it knows; PyTorch's generator is seeded here, so that a test draws the same numbers every
    time, in whatever order and process it runs. That of the CPU alone: where no GPU has been used, `torch.manual_seed`
    prints its stack three times for each test and keeps it.
    """
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(0)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    torch.set_rng_state(state)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch):
    """No power is cut here, so nobody waits for the platter; that every fsync is asked for, fault points show."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def short_ends(monkeypatch):
    """What a run does besides its steps, shortened."""
    shorten(monkeypatch.setattr)


@pytest.fixture
def no_signs_of_life(monkeypatch):
    """Signs of life come after some seconds: on a busy machine, and not where a test counts lines."""
    for silence in ("prepare.progress.FIRST", "prepare.report.Spoken.FIRST", "terminal.working.PATIENCE"):
        monkeypatch.setattr(f"groundup.{silence}", 1e6)


@pytest.fixture
def tiny_config():
    return GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=27)


@pytest.fixture
def tiny_model(tiny_config) -> GPT:
    return init_weights(GPT(tiny_config), seed=1)


@pytest.fixture
def alphabet() -> CharTokenizer:
    return CharTokenizer("\n abcdefghijklmnopqrstuvwxy")


@pytest.fixture
def tiny_shakespeare() -> Path:
    path = SHARED / "data" / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip("needs a copy of Tiny Shakespeare beside the checkout")
    return path
