"""A save that dies or fails at any point never costs more than itself, and never says that it is there."""

import errno
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from groundup.checkpoint.model_folder import load_model, save_model
from groundup.config.errors import UserError
from groundup.files import atomic as files

ANY = range(10**9)


def count_points(monkeypatch, work) -> int:
    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(files, "fault_point", lambda operation, path: calls.append(operation))
        work()
    assert {"mkdir", "open", "write", "fsync", "rename"} <= set(calls)
    return len(calls)


def at_point(k, act):
    """A fault point that acts when it is reached for the k-th time."""
    left = [k]

    def reached(operation, path):
        if left[0] == 0:
            act()
        left[0] -= 1

    return reached


def die():
    os._exit(42)


@pytest.mark.fault(
    "A1",
    "crash at every open, write, fsync, rename and removal of a save, at once or in the background",
    "the newest or the previous checkpoint loads, whole; the next save needs no help",
)
def test_a_crash_at_every_point_of_a_save(
    monkeypatch, record_property, store, save, save_either_way, check, in_child, contents
):
    for step in (1, 2, 3):
        save(step)
    n = count_points(monkeypatch, lambda: save_either_way(4))
    assert n > 25
    reached = set()
    for k in range(n):
        step = 5 + k
        with monkeypatch.context() as patch:
            patch.setattr(files, "fault_point", at_point(k, die))
            assert in_child(lambda step=step: save_either_way(step)) == 42
        newest = int(store.paths()[-1].name.removeprefix("step-"))
        reached.add(check({newest, step}) == step)
        save(step)
        assert check({step}) == step
    assert reached == {True, False}  # some crashes came after the rename, some before
    assert len(store.paths()) == 2
    record_property("figure", f"{n} of {n} points")


@pytest.mark.fault(
    "A1",
    "crash at every point of replacing the model folder",
    "the old or the new model loads",
)
def test_a_crash_at_every_point_of_replacing_a_model(
    monkeypatch, record_property, tmp_path, small_model, alphabet, in_child
):
    path = tmp_path / "run" / "model"
    save_model(path, small_model, alphabet, {"version": -1})
    n = count_points(monkeypatch, lambda: save_model(path, small_model, alphabet, {"version": -2}))
    for k in range(n):
        with monkeypatch.context() as patch:
            patch.setattr(files, "fault_point", at_point(k, die))
            assert in_child(lambda k=k: save_model(path, small_model, alphabet, {"version": k})) == 42
        assert load_model(tmp_path / "run").info["version"] in (k, -2)
        save_model(path, small_model, alphabet, {"version": -2})
    record_property("figure", f"{n} of {n} points")


@pytest.mark.fault(
    "A2",
    "kill after any file of an old checkpoint is deleted",
    "no half of it has a checkpoint's name; the newest loads, and the next save clears the rest away",
)
def test_a_kill_in_the_middle_of_a_removal(monkeypatch, record_property, store, save, check, in_child):
    for step in (1, 2):
        save(step)
    n = len(list(store.paths()[0].iterdir()))

    def cut(k):
        def rmtree(path, *, ignore_errors=False):
            if path.exists():
                for file in sorted(path.iterdir())[:k]:
                    file.unlink()
                die()

        return rmtree

    for k in range(n + 1):
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", cut(k))
            assert in_child(lambda k=k: save(3 + k)) == 42
        assert len(list(store.folder.glob(".trash-*"))) == 1
        assert all(len(list(path.iterdir())) == n for path in store.paths())
        assert check({3 + k}) == 3 + k
        files.sweep(store.folder)
        assert not list(store.folder.glob(".trash-*"))
    record_property("figure", f"{n + 1} of {n + 1} kills")


class Disk:
    """Remembers what fsync has made safe: the contents of files, and the names in folders.

    After a power cut there is only that: a file that was not fsynced is empty, a name that was given, changed or taken
    away in a folder that was not fsynced is as it was before.
    """

    def __init__(self, root):
        self.root = root
        self.files, self.folders, self.kept_open = {}, {}, []
        for path in [root, *root.rglob("*")]:
            descriptor = os.open(path, os.O_RDONLY)
            self.note(descriptor)
            os.close(descriptor)

    def note(self, descriptor):
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self.kept_open.append(os.dup(descriptor))  # so that its inode is not given to another file
        inode = os.fstat(descriptor).st_ino
        if path.is_dir():
            self.folders[inode] = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(path)}
        else:
            self.files[inode] = path.read_bytes()

    def restore(self, target, inode=None):
        """What is there when the power comes back."""
        target.mkdir()
        for name, (child, is_folder) in self.folders.get(inode or self.root.stat().st_ino, {}).items():
            if is_folder:
                self.restore(target / name, child)
            else:
                (target / name).write_bytes(self.files.get(child, b""))

    def close(self):
        for descriptor in self.kept_open:
            os.close(descriptor)


@pytest.mark.fault(
    "A3",
    "power cut at every point of a save: all that was not fsynced is lost (simulated, no plug was pulled)",
    "the newest or the previous checkpoint loads",
)
def test_a_power_cut_at_every_point_of_a_save(monkeypatch, record_property, tmp_path, store, save, contents):
    n, seen = 0, set()
    for step in range(4):  # the first makes the folder, later ones purge
        disk = Disk(tmp_path)
        sync = os.fsync

        def fsync(file, disk=disk, sync=sync):
            sync(file)
            disk.note(file)

        def cut(operation, path, disk=disk, step=step):
            nonlocal n
            n += 1
            disk.restore(tmp_path.with_name(f"{tmp_path.name}-{n}"))
            left = tmp_path.with_name(f"{tmp_path.name}-{n}") / "run" / "checkpoints"
            after = type(store)(left).latest_verified(print)
            seen.add((step, after.state["step"] if after else None))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            patch.setattr(files, "fault_point", cut)
            save(step)
        cut("end", None)
        last = tmp_path.with_name(f"{tmp_path.name}-{n}") / "run" / "checkpoints"
        assert type(store)(last).latest_verified(print).state["step"] == step  # what save says is true
        disk.close()
    assert seen == {(0, None), (0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)}
    record_property("figure", f"{n} of {n} points")


@pytest.mark.fault(
    "A7",
    "the disk says ENOSPC, EACCES or EIO at any call of a save, at once or in the background",
    "one line of error, never 'saved'; nothing half-written is left, and earlier checkpoints load",
)
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_refusing_disk_at_every_point(monkeypatch, record_property, store, save, save_either_way, check, code):
    for step in (1, 2, 3):
        save(step)
    n = count_points(monkeypatch, lambda: save_either_way(4))

    def refuse():
        raise OSError(code, os.strerror(code))

    for k in range(n):
        with monkeypatch.context() as patch:
            patch.setattr(files, "fault_point", at_point(k, refuse))
            with pytest.raises(UserError, match=os.strerror(code)) as error:
                save_either_way(10 + k)
        assert "\n" not in str(error.value)
        check({4, 10 + k, *range(10, 10 + k)})
        assert not list(store.folder.glob(".tmp-*"))
    record_property("figure", f"{n} of {n} calls")


@pytest.mark.fault(
    "A1",
    "SIGKILL at any moment to a process that saves without pause",
    "the newest or the previous checkpoint loads, whole, every time",
)
@pytest.mark.parametrize("n", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_timed_kills(record_property, store, save, contents, check, n):
    """Half of the lives save at once, half in the background; every other one lasts until it has saved once."""
    save(0)
    for i in range(n):
        before = check(ANY)
        newest = store.paths()[-1].name
        begin = store.save if i % 4 < 2 else store.save_later
        pid = os.fork()
        if pid == 0:
            step = before
            while True:
                step += 1
                begin(contents(step))
        end = time.monotonic() + 60
        while i % 2 and store.paths()[-1].name == newest and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(0.003 * (i % 17))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert check(ANY) >= before
    assert check(ANY) >= n // 2
    record_property("figure", f"{n} of {n} kills")
