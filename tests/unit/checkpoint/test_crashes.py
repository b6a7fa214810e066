"""A save that dies, fails or is damaged at any point never costs more than itself."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from groundup.checkpoint.artifact import load_model, save_model
from groundup.checkpoint.state import CheckpointStore
from groundup.config.errors import UserError
from groundup.runtime import files


@pytest.fixture
def save(tmp_path, tiny_model, alphabet):
    """A function that saves checkpoint `step`, its weights all equal to the step."""
    store = CheckpointStore(tmp_path / "checkpoints")

    def save_step(step, *, is_best=False):
        state = {name: torch.full_like(p, step) for name, p in tiny_model.state_dict().items()}
        return store.save(
            step=step,
            config=tiny_model.config,
            model=state,
            tokenizer=alphabet,
            tensors={"optimizer0": {"0.exp_avg": torch.full((3,), float(step))}},
            state={"train": {"best_loss": 1.0}, "step": step},
            is_best=is_best,
        )

    save_step.store = store
    return save_step


def in_child(work) -> int:
    """Run something in a fork of this process; returns the exit code, or minus the signal."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def count_points(monkeypatch, work) -> int:
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(files, "fault_point", lambda operation, path: calls.append(operation))
        work()
    return len(calls)


def check(store, allowed):
    found = store.latest_verified()
    assert found.checkpoint is not None
    step = found.checkpoint.state["step"]
    assert step in allowed
    assert all((t == step).all() for t in found.checkpoint.model.values())
    assert (found.checkpoint.tensors["optimizer0"]["0.exp_avg"] == step).all()
    return step


def test_a_crash_at_every_point_of_a_save(monkeypatch, save):
    """Saving also purges, so this kills in the middle of removals, too."""
    for step in (1, 2, 3):
        save(step)
    n = count_points(monkeypatch, lambda: save(4))
    assert n > 15
    reached = set()
    for k in range(n):
        step = 5 + k
        left = [k]

        def die(operation, path, left=left):
            if left[0] == 0:
                os._exit(42)
            left[0] -= 1

        with monkeypatch.context() as patch:
            patch.setattr(files, "fault_point", die)
            assert in_child(lambda step=step: save(step)) == 42
        newest = int(save.store.paths()[-1].name.removeprefix("step-"))
        reached.add(check(save.store, {newest, step}) == step)
        save(step)
        assert check(save.store, {step}) == step
    assert reached == {True, False}  # some crashes came after the rename, some before
    assert len(save.store.paths()) == 2


def test_a_crash_at_every_point_of_replacing_a_model(monkeypatch, tmp_path, tiny_model, alphabet):
    path = tmp_path / "run" / "model"
    save_model(path, tiny_model, alphabet, {"version": -1})

    def points():
        save_model(path, tiny_model, alphabet, {"version": -2})

    for k in range(count_points(monkeypatch, points)):
        left = [k]

        def die(operation, path, left=left):
            if left[0] == 0:
                os._exit(42)
            left[0] -= 1

        with monkeypatch.context() as patch:
            patch.setattr(files, "fault_point", die)
            assert in_child(lambda k=k: save_model(path, tiny_model, alphabet, {"version": k})) == 42
        assert load_model(tmp_path / "run").info["version"] in (k, -2)
        save_model(path, tiny_model, alphabet, {"version": -2})


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_refusing_disk_at_every_point(monkeypatch, save, code):
    for step in (1, 2, 3):
        save(step)
    for k in range(count_points(monkeypatch, lambda: save(4))):
        left = [k]

        def refuse(operation, path, left=left):
            left[0] -= 1
            if left[0] == -1:
                raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(files, "fault_point", refuse)
            with pytest.raises(UserError, match=os.strerror(code)):
                save(10 + k)
        check(save.store, {4, 10 + k, *range(10, 10 + k)})
        assert not list(save.store.folder.glob(".tmp-*"))


@pytest.mark.parametrize("n", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_timed_kills(tmp_path, save, n):
    """A process that saves in a loop is killed again and again; every time, what is there can be loaded."""
    save(0)
    for i in range(n):
        before = check(save.store, set(range(10**7)))
        newest = save.store.paths()[-1].name

        def forever(before=before):
            step = before
            while True:
                step += 1
                save(step)

        pid = os.fork()
        if pid == 0:
            forever()
        end = time.monotonic() + 60  # every other life lasts until it has saved at least once
        while i % 2 and save.store.paths()[-1].name == newest and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(0.003 * (i % 17))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert check(save.store, set(range(10**7))) >= before
    assert check(save.store, set(range(10**7))) >= n // 2


def test_every_flipped_bit_is_refused(save):
    path = save(1)
    generator = torch.Generator().manual_seed(0)
    candidates = sorted(p for p in path.iterdir())
    sizes = torch.tensor([float(p.stat().st_size) for p in candidates])
    # Small files as often as large ones: a flipped bit in the manifest matters as much.
    chosen = torch.multinomial(sizes.sqrt(), 1000, replacement=True, generator=generator)
    caught = 0
    for i in chosen.tolist():
        file = candidates[i]
        original = file.read_bytes()
        bit = int(torch.randint(len(original) * 8, (1,), generator=generator))
        damaged = bytearray(original)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            with pytest.raises(UserError) as refused:
                save.store.load(path)
            assert str(path) in str(refused.value)
            caught += 1
        finally:
            file.write_bytes(original)
    assert caught == 1000
    save.store.load(path)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.98])
def test_cut_files_are_named(save, keep):
    path = save(1)
    for file in path.iterdir():
        original = file.read_bytes()
        file.write_bytes(original[: int(len(original) * keep)])
        with pytest.raises(UserError, match=file.name):
            save.store.load(path)
        file.unlink()
        with pytest.raises(UserError, match=file.name):
            save.store.load(path)
        file.write_bytes(original)


def test_a_manifest_cannot_name_files_elsewhere(save):
    path = save(1)
    manifest = path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"config.json"', '"../config.json"'))
    with pytest.raises(UserError, match="is not a manifest"):
        save.store.load(path)


def test_a_link_in_place_of_a_file_is_refused(save, tmp_path):
    path = save(1)
    target = tmp_path / "elsewhere"
    (path / "config.json").rename(target)
    (path / "config.json").symlink_to(target)
    with pytest.raises(UserError, match=r"config\.json is missing"):
        save.store.load(path)


def test_damaged_newest_is_skipped_by_name(save):
    save(1)
    newest = save(2)
    (newest / "training.json").write_text("{}")
    found = save.store.latest_verified()
    assert found.checkpoint.state["step"] == 1
    assert len(found.notes) == 1
    assert found.notes[0].startswith("skipped step-0000002: ")


def test_keeps_the_last_and_the_best(save):
    for step in range(1, 8):
        save(step, is_best=step in (2, 3))
    assert [p.name for p in save.store.paths()] == ["step-0000003", "step-0000006", "step-0000007"]
    assert save.store.load_best().state["step"] == 3
    save(8, is_best=True)
    save(9)
    assert [p.name for p in save.store.paths()] == ["step-0000008", "step-0000009"]


def test_opening_a_checkpoint_runs_nothing(save, tmp_path):
    """A pickle in place of each file: the payload would leave a canary."""
    canary = tmp_path / "canary"
    payload = f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode()
    subprocess.run([sys.executable, "-c", f"import pickle; pickle.loads({payload!r})"], check=True)
    assert canary.exists()  # the payload works where somebody unpickles it
    canary.unlink()
    path = save(1)
    for file in list(path.iterdir()):
        original = file.read_bytes()
        file.write_bytes(payload)
        with pytest.raises(UserError):
            load_model(path)
        files.write_file(file, original)
    for file in path.iterdir():
        if file.name != "manifest.json":
            file.write_bytes(payload)
    files._seal(path)  # even with a manifest that vouches for it
    with pytest.raises(UserError):
        load_model(path)
    assert not canary.exists()
