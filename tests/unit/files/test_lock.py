import os
import subprocess
import sys
import time

import pytest

from groundup.config.errors import UserError
from groundup.files.lock import RunLock, is_held


@pytest.mark.fault(
    "A12",
    "a second run in the folder of one that goes on",
    "refused within a second, with the process and host that hold it",
)
def test_the_second_is_refused_at_once_and_told_who(tmp_path):
    with RunLock(tmp_path / "run"):
        seconds = []
        for _ in range(5):  # the machine may be busy for a moment
            start = time.monotonic()
            with pytest.raises(UserError, match=f"process {os.getpid()} on"), RunLock(tmp_path / "run"):
                pass
            seconds.append(time.monotonic() - start)
        assert min(seconds) < 1
    with RunLock(tmp_path / "run"):
        pass


@pytest.mark.fault(
    "A12",
    "the holder of a run folder is killed",
    "the folder is free at once",
)
def test_a_killed_holder_frees_it(tmp_path):
    code = (
        "import sys, time, pathlib; from groundup.files.lock import RunLock\n"
        "with RunLock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError), RunLock(tmp_path / "run"):
        pass
    holder.kill()
    holder.communicate()
    with RunLock(tmp_path / "run"):
        pass


@pytest.mark.fault(
    "A12",
    "a second run in the folder of one that goes on, by another name: a link, a link above it, dots",
    "refused: a folder has one lock",
)
def test_a_folder_has_one_lock_whatever_it_is_called(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    (tmp_path / "other").symlink_to(tmp_path / "disk")
    names = [tmp_path / "disk/real", tmp_path / "link", tmp_path / "other/real", tmp_path / "disk/../link"]
    for held in names:
        with RunLock(held):
            for name in names:
                assert is_held(name)
                with pytest.raises(UserError, match="in use"), RunLock(name):
                    pass
    assert not any(map(is_held, names))


@pytest.mark.fault(
    "A7",
    "the disk is full when a run takes its lock",
    "one line that names the folder, and the lock is free",
)
def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            type(tmp_path), "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left"))
        )
        with pytest.raises(UserError, match=r"cannot lock .*run: No space left"), RunLock(tmp_path / "run"):
            pass
    with RunLock(tmp_path / "run"):
        pass
