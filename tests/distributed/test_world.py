"""How ranks agree."""

import os

import pytest
import ranks
import torch
from torch.distributed import HashStore

from groundup.config.errors import UsageError, UserError
from groundup.distributed.ranks import World, job, joined, launcher, resolve_parallel, restarted

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")


@pytest.fixture(autouse=True)
def _no_torchrun(monkeypatch):
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


def test_three_ranks_agree_on_everything(start, tmp_path):
    reference = ranks.evaluate_alone(ranks.make_split(tmp_path))
    results = start(3, "talk").results()
    assert (tmp_path / "order.txt").read_text().split()[0] == "0"
    assert sorted((tmp_path / "order.txt").read_text().split()) == ["0", "1", "2"]
    for result in results:
        assert result["sum"] == [3.0, 3.0]
        assert result["mean"] == 1.0
        assert result["max"] == 20
        assert result["gather"] == [[0, 7], [1, 7], [2, 7]]
        assert result["broadcast"] == [{"rank": 0, "ü": None}, None]
        assert result["different"] == [1]
        nats, n_tokens, n_bytes = result["val"]
        assert nats == pytest.approx(reference.nats, rel=1e-6)
        assert (n_tokens, n_bytes) == (reference.n_tokens, reference.n_bytes)
        assert "h.1.mlp.c_fc.weight of rank 2 is not rank 0's (1 of 28 parameters differ)" in result["weights"]


def test_one_process_is_a_world_in_which_nothing_happens():
    with joined(torch.device("cpu"), timeout=1) as world:
        assert world == World()
        assert world.is_main
        x = torch.tensor([1.0, 2.0])
        assert world.sum(x) is x
        assert world.mean(x) is x
        assert world.max(3) == 3
        assert world.gather(x) == [x]
        assert world.broadcast("anything") == "anything"
        assert world.ranks_that_differ("a") == []
        with world.main_first("corpus"):
            pass
    assert not torch.distributed.is_initialized()
    assert (job(), restarted(), launcher()) == (None, False, "")


@pytest.mark.parametrize(
    ("requested", "size", "expected"),
    [("auto", None, "none"), ("none", None, "none"), ("auto", 1, "ddp"), ("auto", 2, "ddp"), ("ddp", 1, "ddp"),
     ("fsdp", 2, "fsdp"), ("none", 1, "none")],
)  # fmt: skip
def test_auto_is_ddp_under_torchrun_and_none_otherwise(requested, size, expected, monkeypatch):
    if size:
        monkeypatch.setitem(os.environ, "RANK", "0")
        monkeypatch.setitem(os.environ, "WORLD_SIZE", str(size))
    assert resolve_parallel(requested) == expected


@pytest.mark.parametrize(
    ("requested", "size", "message"),
    [("none", 2, "would train 2 models that know nothing of each other"),
     ("ddp", None, "start it with torchrun"), ("fsdp", None, "start it with torchrun")],
)  # fmt: skip
def test_what_would_train_replicas_apart_is_refused(requested, size, message, monkeypatch):
    if size:
        monkeypatch.setitem(os.environ, "RANK", "0")
        monkeypatch.setitem(os.environ, "WORLD_SIZE", str(size))
    with pytest.raises(UsageError, match=message):
        resolve_parallel(requested)


def test_the_command_line_names_torchrun(monkeypatch):
    values = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert launcher() == "torchrun --standalone --nproc_per_node 4 -m "
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert launcher() == "torchrun --nnodes 2 --nproc_per_node 2 -m "


@pytest.mark.fault("E8", "a job of torchrun begins for the 4th time at one step", "it stops, and says the cause")
def test_a_job_does_not_begin_for_ever_at_one_step():
    world = World(job_store=HashStore())
    for _ in range(3):
        world.refuse_crash_loop(20)
    world.refuse_crash_loop(40)
    with pytest.raises(UserError, match="began 3 times at step 20 and never saved a later one; the cause: unknown"):
        world.refuse_crash_loop(20)
    world.job_store.set("groundup/cause", "the disk is full")
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            world.refuse_crash_loop(20)
        assert str(caught.value) == "began 3 times at step 20 and never saved a later one; the cause: the disk is full"
        world.job_store.set("groundup/cause", str(caught.value))
    for _ in range(9):
        World().refuse_crash_loop(0)  # without torchrun nobody starts anything again
