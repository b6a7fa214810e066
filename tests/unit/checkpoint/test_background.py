"""Saving while training goes on: the same bytes, one at a time, and no failure is lost."""

import dataclasses
import errno
import os
import threading

import pytest
import torch

from groundup.checkpoint.background import HostCopy
from groundup.config.errors import UserError
from groundup.files import atomic as files


@pytest.fixture
def gate(monkeypatch):
    """The disk waits until gate.set(); one that fails to open it fails, too."""
    opened, started = threading.Event(), threading.Event()

    def wait(operation, path):
        if operation == "open":
            started.set()
            assert opened.wait(60)

    monkeypatch.setattr(files, "fault_point", wait)
    opened.started = started
    yield opened
    opened.set()


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(operation, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "fault_point", refuse)


@pytest.mark.fault(
    "A1",
    "training changes weights, moments and counters in place while a checkpoint is written in the background",
    "every file is, byte for byte, that of a save at once",
)
def test_what_is_written_is_what_was_there_when_it_was_asked_for(store, contents, gate, tmp_path):
    later, now = contents(3), contents(3)
    later.tensors["rng"] = {"cpu": torch.get_rng_state(), "half": torch.randn(7).bfloat16()}
    now.tensors["rng"] = {name: t.clone() for name, t in later.tensors["rng"].items()}
    store.save_later(later)
    assert gate.started.wait(60)
    assert store.busy
    for tensors in later.parts():  # a step, while the writer waits for the disk
        for tensor in tensors.values():
            tensor.zero_()
    later.state["train"]["best_loss"] = 9.0
    gate.set()
    store.wait()
    path = type(store)(tmp_path / "now").save(now)
    names = [file.name for file in path.iterdir()]
    assert len(names) == 6
    for name in names:
        assert (path / name).read_bytes() == (store.paths()[0] / name).read_bytes(), name


def test_one_at_a_time(store, contents, gate):
    store.save_later(contents(1))
    assert gate.started.wait(60)
    second = threading.Thread(target=lambda: store.save_later(contents(2)), daemon=True)
    second.start()
    second.join(0.05)
    assert second.is_alive()  # it waits for the first
    gate.set()
    second.join(60)
    store.wait()
    assert [path.name for path in store.paths()] == ["step-0000001", "step-0000002"]
    assert store.latest_verified(pytest.fail).state["step"] == 2


@pytest.mark.fault(
    "A8",
    "a save in the background fails",
    "the next step boundary, save, wait or end raises what a save at once would have raised; nothing has its name",
)
@pytest.mark.parametrize("how", ["check", "wait", "save_later", "exit"])
def test_a_failure_is_told_once_and_in_the_same_words(monkeypatch, store, contents, full_disk, how):
    with pytest.raises(UserError) as at_once:
        store.save(contents(1))
    store.save_later(contents(1))
    store._background._thread.join()
    ask = {
        "check": store.check,
        "wait": store.wait,
        "save_later": lambda: store.save_later(contents(2)),
        "exit": lambda: leave(store),
    }
    with pytest.raises(UserError) as error:
        ask[how]()
    assert str(error.value) == str(at_once.value)
    assert "No space left" in str(error.value)
    store.check()
    assert store.paths() == []
    monkeypatch.undo()
    store.save_later(contents(3))
    store.wait()
    assert store.latest_verified(pytest.fail).state["step"] == 3


def leave(store, contents=None, error=None):
    """A run ends, with an error or without, while a checkpoint is on its way."""
    with store:
        if contents:
            store.save_later(contents)
        if error:
            raise error


def test_an_error_of_the_run_is_not_hidden_by_that_of_the_disk(store, contents, full_disk):
    with pytest.raises(UserError, match=r"the loss is nan; nor was the last checkpoint saved: .*No space left"):
        leave(store, contents(1), UserError("the loss is nan"))
    with pytest.raises(ZeroDivisionError):
        leave(store, contents(1), ZeroDivisionError())
    store.check()


def test_leaving_waits_but_not_for_a_second_ctrl_c(store, contents, gate):
    threading.Timer(0.05, gate.set).start()
    leave(store, contents(1))
    assert store.paths()
    gate.clear()
    with pytest.raises(KeyboardInterrupt):
        leave(store, contents(2), KeyboardInterrupt())
    assert store.busy
    gate.set()
    store.wait()


def test_copies_keep_types_shapes_and_layouts_and_use_their_memory_again():
    tensors = {
        "a": torch.randn(3, 5), "b": torch.randn(4, 6).t(), "c": torch.tensor(2.0), "d": torch.empty(0, 3),
        "e": torch.arange(7, dtype=torch.uint8), "f": torch.randn(3).bfloat16(), "g": torch.arange(5).double(),
    }  # fmt: skip
    host = HostCopy()
    host.reserve([tensors, {"x": torch.ones(9)}])
    first, other = host.take([tensors, {"x": torch.ones(9)}])
    assert {n: (t.dtype, t.shape) for n, t in first.items()} == {n: (t.dtype, t.shape) for n, t in tensors.items()}
    assert all(first[name].equal(t) for name, t in tensors.items())
    assert other["x"].equal(torch.ones(9))
    place = first["a"].data_ptr()
    assert host.take([tensors])[0]["a"].data_ptr() == place
    parameter = torch.nn.Parameter(torch.ones(100_000))
    grown = host.take([{"p": parameter}])[0]["p"]  # more than there was room for
    assert grown.equal(parameter.data)
    assert not grown.requires_grad


def test_contents_are_complete(contents):
    """Whoever adds a field must say whether it is copied."""
    assert [f.name for f in dataclasses.fields(contents(1))] == [
        "step", "config", "model", "tokenizer", "tensors", "state", "is_best",
    ]  # fmt: skip
