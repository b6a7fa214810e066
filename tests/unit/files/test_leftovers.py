"""What killed processes were making is removed by the next that writes there; what lives, or is not ours, stays."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from groundup.config.errors import UserError
from groundup.files import atomic, leftovers
from groundup.files.atomic import new_folder, write_file
from groundup.files.leftovers import sweep_dead, temporary_name

DIE = """
import os, pathlib, signal, sys
from groundup.files import atomic
atomic.fault_point = lambda operation, path: operation == "rename" and os.kill(os.getpid(), signal.SIGKILL)
here = pathlib.Path(sys.argv[1])
if sys.argv[2] == "folder":
    with atomic.new_folder(here / "out") as folder:
        (folder / "large").write_bytes(b"x")
else:
    atomic.write_file(here / "out", b"x")
"""


def die(folder, kind):
    child = subprocess.run([sys.executable, "-c", DIE, str(folder), kind], check=False)
    assert child.returncode == -9


REMOVE = """
import os, pathlib, signal, sys
from groundup.files import atomic
atomic.fault_point = lambda operation, path: operation == "rmtree" and os.kill(os.getpid(), signal.SIGKILL)
with atomic.new_folder(pathlib.Path(sys.argv[1]) / "out"):
    pass
"""


def test_what_a_killed_process_was_removing_is_removed(tmp_path):
    with new_folder(tmp_path / "out"):
        pass
    assert subprocess.run([sys.executable, "-c", REMOVE, str(tmp_path)], check=False).returncode == -9
    assert sorted(path.name[:13] for path in tmp_path.iterdir()) == [".trash-.old-o", "out"]
    with new_folder(tmp_path / "other"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_a_process_number_may_come_again_in_a_container(tmp_path):
    with new_folder(tmp_path / "out"):
        pass
    for name in (f".trash-.old-out-{os.getpid()}", temporary_name(tmp_path / ".old-out", "trash").name):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    with new_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
    assert (tmp_path / "out" / "new").is_file()
    assert not temporary_name(tmp_path / ".old-out", "trash").exists()


@pytest.mark.fault(
    "A15",
    "SIGKILL while a model folder, an export, an import, a tokenizer, results or a picture are written",
    "what was half made is removed by the next command that writes there, and by nobody while its process lives",
)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_the_next_command_removes_what_a_killed_one_left(tmp_path, kind):
    die(tmp_path, kind)
    assert [path.name[:9] for path in tmp_path.iterdir()] == [".tmp-out-"]
    if kind == "folder":
        with new_folder(tmp_path / "other"):
            pass
    else:
        write_file(tmp_path / "other", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_only_leftovers_of_dead_processes_of_this_machine_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = temporary_name(tmp_path / "a").name
    kept = [mine, re.sub("[0-9a-f]{8}-", "00000000-", mine), ".tmp-a", ".tmp-a-1", f".tmp-a-{dead.pid}", ".tmp-a-12-x"]
    gone = re.sub(r"-\d+$", f"-{dead.pid}", mine)
    for name in [*kept, gone]:
        (tmp_path / name).mkdir()
    (tmp_path / re.sub(r"-\d+$", f"-{10**30}", mine)).touch()
    sweep_dead(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_container_knows_no_processes_of_another(tmp_path, monkeypatch):
    for name, numbers in (("one", "pid:[1]"), ("other", "pid:[2]")):
        (tmp_path / name).symlink_to(numbers)
    monkeypatch.setattr(leftovers, "PROCESS_NUMBERS", tmp_path / "one")
    folder = tmp_path / "shared"
    folder.mkdir()
    dead = temporary_name(folder / "a")
    dead = dead.with_name(re.sub(r"-\d+$", f"-{10**30}", dead.name))
    dead.touch()
    monkeypatch.setattr(leftovers, "PROCESS_NUMBERS", tmp_path / "other")
    sweep_dead(folder)
    assert dead.exists()
    monkeypatch.setattr(leftovers, "PROCESS_NUMBERS", tmp_path / "one")
    sweep_dead(folder)
    assert not dead.exists()


def test_no_process_is_asked_on_windows_which_would_end_it(monkeypatch):
    asked = SimpleNamespace(name="nt", kill=lambda *_: pytest.fail("ended"))
    monkeypatch.setattr(leftovers, "os", asked)
    assert leftovers._is_alive(os.getpid())


def test_a_name_may_be_as_long_as_the_disk_allows(tmp_path):
    write_file(tmp_path / ("é" * 127), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["é" * 127]


def test_a_disk_that_refuses_removal_too_does_not_hide_why(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "write_synced", full)
    monkeypatch.setattr(type(tmp_path), "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError(30, "Read-only")))
    with pytest.raises(UserError, match=r"cannot write .*a: No space left on device"):
        write_file(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []  # noqa: PTH208
