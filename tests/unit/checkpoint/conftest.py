"""Checkpoints whose contents tell which step they are."""

import os

import pytest
import torch

from groundup.checkpoint.state import CheckpointStore, Contents
from groundup.config.model import GPTConfig
from groundup.model.gpt import GPT


@pytest.fixture
def store(tmp_path):
    (tmp_path / "run").mkdir()
    return CheckpointStore(tmp_path / "run" / "checkpoints")


@pytest.fixture
def small_model():
    """Of few tensors: each is a point at which to crash."""
    return GPT(GPTConfig(n_layer=1, n_head=1, n_embd=32, block_size=16, vocab_size=27, bias=False))


@pytest.fixture
def contents(small_model, alphabet):
    """contents(step): a checkpoint whose every weight and moment is its step."""

    def make(step, *, is_best=False):
        return Contents(
            step=step,
            config=small_model.config,
            model={name: torch.full_like(p, step) for name, p in small_model.state_dict().items()},
            tokenizer=alphabet,
            tensors={"optimizer0": {"0.exp_avg": torch.full((3,), float(step))}},
            state={"train": {"best_loss": 1.0}, "step": step},
            is_best=is_best,
        )

    return make


@pytest.fixture
def save(store, contents):
    """save(step): a checkpoint on the disk; returns its folder."""
    return lambda step, *, is_best=False: store.save(contents(step, is_best=is_best))


@pytest.fixture(params=["at once", "in the background"])
def save_either_way(request, store, contents):
    """save(step), and save(step) that leaves the writing to a thread and waits for it."""

    def later(step):
        store.save_later(contents(step))
        store.wait()

    return later if request.param == "in the background" else lambda step: store.save(contents(step))


@pytest.fixture
def check(store):
    """check(steps): what is loaded after a crash is one of these steps, whole; returns which."""

    def look(allowed):
        found = store.latest_verified(print)
        assert found is not None
        step = found.state["step"]
        assert step in allowed
        assert all((t == step).all() for t in found.model.values())
        assert (found.tensors["optimizer0"]["0.exp_avg"] == step).all()
        return step

    return look


@pytest.fixture
def in_child():
    """in_child(work): run it in a fork of this process; returns the exit code, or minus the signal."""

    def run(work) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                work()
            except BaseException:
                os._exit(99)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run
