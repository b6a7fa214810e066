import contextlib
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from groundup.config.errors import UserError
from groundup.files.lock import RunLock, is_held, one_at_a_time


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


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that takes no files")
def test_a_place_that_takes_no_files_is_told_and_nobody_waits():
    """A folder of /proc, which says that there is none."""
    for lock in (RunLock(Path("/proc/run")), one_at_a_time(Path("/proc/file"))):
        with pytest.raises(UserError, match=r"cannot write /proc/\w+: no file can be made in /proc"), lock:
            pass


@pytest.mark.fault(
    "A7",
    "the disk is full when a run takes its lock",
    "one line that names the folder; the lock is free, and nothing is left of it",
)
def test_a_full_disk_names_the_folder(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        path.touch()  # a name takes no room
        raise OSError(28, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "write_text", refuse)
        with pytest.raises(UserError, match=r"cannot lock .*run: No space left"), RunLock(tmp_path / "run"):
            pass
    assert list(tmp_path.iterdir()) == []
    with RunLock(tmp_path / "run"):
        pass


@pytest.mark.fault("A12", "a run ends, or is refused its folder", "no file of a lock is left behind")
def test_nothing_is_left_of_a_lock(tmp_path):
    run, table = tmp_path / "run", tmp_path / "eval.json"
    with RunLock(run):
        with pytest.raises(UserError, match="in use"), RunLock(run):
            pass
        assert is_held(run)  # and the one that was refused has not taken the file away
    assert not list(tmp_path.iterdir())
    for wait in (True, False):
        with one_at_a_time(table, wait=wait):
            pass
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_removed_file_is_none(tmp_path, monkeypatch):
    """Another run ends, and removes the file, after it was opened and before it is locked."""
    fcntl = pytest.importorskip("fcntl")
    lock = fcntl.flock

    def removed_before(file, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        (tmp_path / ".run.lock").unlink()
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", removed_before)
    with RunLock(tmp_path / "run"):
        assert is_held(tmp_path / "run")


@pytest.fixture
def onlooker(tmp_path):
    """Looks at the lock of a killed run, and stalls."""
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / ".run.lock").touch()
    (tmp_path / ".run.lock.holder").write_text("process 1 on earth")
    with (tmp_path / ".run.lock").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield file


@pytest.mark.fault("A12", "several look at once whether a run goes on", "none takes another one for the run")
@pytest.mark.usefixtures("onlooker")
def test_onlookers_do_not_see_one_another(tmp_path):
    assert not is_held(tmp_path / "run")


@pytest.mark.fault("A12", "a process that looks whether a run goes on stalls while one begins", "the run waits for it")
def test_a_run_waits_for_an_onlooker(tmp_path, onlooker, monkeypatch):
    acquire = FileLock.acquire

    def leaves_after_it(lock, timeout):
        try:
            return acquire(lock, timeout=timeout)
        except Timeout:
            onlooker.close()
            raise

    monkeypatch.setattr(FileLock, "acquire", leaves_after_it)
    with RunLock(tmp_path / "run"):
        assert onlooker.closed
        assert is_held(tmp_path / "run")


def test_an_onlooker_that_stays_is_not_waited_for_without_end(tmp_path, onlooker, monkeypatch):
    monkeypatch.setattr("groundup.files.lock._ONLOOKERS", 2)
    with pytest.raises(UserError, match="in use"), RunLock(tmp_path / "run"):
        pass


def test_who_looks_at_the_lock_of_a_removed_file_looks_again(tmp_path, monkeypatch):
    """The run that was looked at has ended, and another one has begun."""
    fcntl = pytest.importorskip("fcntl")
    run, lock = tmp_path / "run", fcntl.flock
    with contextlib.ExitStack() as later:

        def replaced_before(file, how):
            monkeypatch.setattr(fcntl, "flock", lock)
            (tmp_path / ".run.lock").unlink()
            later.enter_context(RunLock(run))
            return lock(file, how)

        (tmp_path / ".run.lock").touch()
        monkeypatch.setattr(fcntl, "flock", replaced_before)
        assert is_held(run)


def test_a_disk_without_shared_locks_is_asked_by_taking_one(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    lock = fcntl.flock

    def refuse(file, how):
        if how & fcntl.LOCK_SH:
            raise OSError(errno.ENOSYS, "Function not implemented")
        return lock(file, how)

    monkeypatch.setattr(fcntl, "flock", refuse)
    with RunLock(tmp_path / "run"):
        assert is_held(tmp_path / "run")
    assert not is_held(tmp_path / "run")
