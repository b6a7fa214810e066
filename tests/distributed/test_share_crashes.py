"""A checkpoint of shares that dies at any point costs no more than itself, as one that a single process writes."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from groundup.checkpoint.state import CheckpointStore
from groundup.checkpoint.tensor_file import load_tensors
from small_runs import plays

FLAGS = [
    "--data.source=text", "--data.path=text.txt", "--model.n-layer=1", "--model.n-head=1", "--model.n-embd=16",
    "--model.block-size=16", "--model.dropout=0.1", "--tokens-per-step=64", "--runtime.micro-batch-size=2",
    "--runtime.threads=1", "--runtime.compile=off", "--runtime.matmul=default", "--runtime.device=cpu",
    "--runtime.parallel=fsdp", "--optim.name=adamw", "--eval.every=100", "--eval.max-tokens=200",
    "--eval.sample-every=0", "--checkpoint.every=2", "--log-every=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(plays(60))
    return tmp_path


def begin(start, name, *words, patch=None, resume=False):
    base = ["--resume", f"runs/{name}"] if resume else ["shakespeare", f"--name={name}", *FLAGS]
    return start(2, "command", words=["train", *base, *words], patch=patch)


def finish(team):
    assert team.results() == [0, 0], team.texts()


def contents(path):
    """What a checkpoint says, whatever order torch wrote a share's header in; without the time it took."""
    held = {}
    for file in path.iterdir():
        if file.suffix == ".safetensors":
            held[file.name] = {
                name: t.contiguous().view(-1).numpy().tobytes() for name, t in load_tensors(file).items()
            }
        elif file.name == "training.json":
            held[file.name] = json.loads(file.read_bytes())
            del held[file.name]["state"]["train"]["seconds"]
    return held


def found(folder):
    """Step of the newest whole checkpoint of a folder, or None; none has a name and is not whole."""
    newest = CheckpointStore(folder).latest_verified(pytest.fail)
    return newest and int(newest.path.name.removeprefix("step-"))


@pytest.mark.fault(
    "A1",
    "crash at every operation on the disk by either of two FSDP ranks that save their shares",
    "the newest or the previous checkpoint loads, whole, with the shares of both; the next save needs no help",
)
def test_a_crash_at_every_point_of_saving_shares(start, record_property):
    """What is on the disk at each such moment is kept, as a kill of both ranks would have left it, and loaded."""
    Path("left").mkdir()
    finish(begin(start, "run", "--max-steps=6", "--checkpoint.keep-last=2", patch="keep_the_disk_at_every_point"))
    finish(begin(start, "whole", "--max-steps=6", "--checkpoint.keep-last=9"))
    whole = {path.name: contents(path) for path in Path("runs/whole/checkpoints").iterdir()}
    assert len(whole) == 3
    assert all(sum(name.startswith("shard-") for name in held) == 2 for held in whole.values())

    seen, halves = set(), []
    points = sorted(Path("left").iterdir())
    steps = {}
    for point in points:
        writing, rank = point.name.split("-")[1:]  # the checkpoint that was to come, and who wrote
        there = sorted(point.rglob("*"))
        state = tuple((path.relative_to(point), path.is_file() and path.read_bytes()) for path in there)
        known = state in steps
        step = steps[state] if known else steps.setdefault(state, found(point))
        assert step in ({None, 2} if writing == "2" else {int(writing) - 2, int(writing)}), point
        seen.add((writing, rank, step))
        for path in () if known else point.glob("step-*"):  # the same bytes say the same
            assert contents(path) == whole[path.name]
        if list(point.glob(".tmp-*/shard-*")):
            halves.append(point)
    assert {(writing, step) for writing, _, step in seen} == {
        ("2", None), ("2", 2), ("4", 2), ("4", 4), ("6", 4), ("6", 6)
    }  # fmt: skip
    assert {rank for _, rank, _ in seen} == {"0", "1"}

    # One that was cut where both shares were half there goes on as if nothing had been.
    half = next(point for point in reversed(halves) if found(point) == 4)
    shutil.rmtree("runs/run/checkpoints")
    shutil.copytree(half, "runs/run/checkpoints")
    finish(begin(start, "run", resume=True))
    assert contents(Path("runs/run/checkpoints/step-0000006")) == whole["step-0000006"]
    assert not list(Path("runs/run/checkpoints").glob(".*"))
    record_property("figure", f"{len(points)} of {len(points)} points")


@pytest.mark.slow
@pytest.mark.fault(
    "A1",
    "SIGKILL at any moment of one or both of two FSDP ranks that save after every step",
    "the newest or the previous checkpoint loads, whole; in the end it is that of an undisturbed run",
)
def test_timed_kills_of_ranks_with_shares(start, record_property):
    moments, n, before, folder = random.Random(1), 20, 0, Path("runs/run/checkpoints")
    constant = ["--optim.lr=0.001", "--optim.min-lr-ratio=1", "--optim.warmup-steps=0"]  # whatever max_steps is
    every = ["--checkpoint.every=1", *constant, "--max-steps=3000", "--runtime.timeout=60"]
    for life in range(n):
        team = begin(start, "run", *([] if life else every), resume=life > 0)
        end = time.monotonic() + 240
        while (not folder.exists() or found_quickly(folder) <= before) and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(moments.random() * 0.3)
        assert all(process.is_alive() for process in team.processes), team.texts()
        for process in moments.choice([team.processes, team.processes[:1], team.processes[1:]]):
            os.kill(process.pid, signal.SIGKILL)
        team.results()
        step = found(folder)
        assert step > before
        before = step
    finish(begin(start, "run", f"--max-steps={before + 2}", resume=True))
    finish(begin(start, "whole", *every[:4], f"--max-steps={before + 2}"))
    name = f"step-{before + 2:07d}"
    run, whole = contents(folder / name), contents(Path("runs/whole/checkpoints") / name)
    assert {k: v for k, v in run.items() if k != "training.json"} == {
        k: v for k, v in whole.items() if k != "training.json"
    }
    record_property("figure", f"{n} of {n} kills")


def found_quickly(folder):
    return max((int(path.name.removeprefix("step-")) for path in folder.glob("step-*")), default=0)
