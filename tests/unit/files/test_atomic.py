import errno
import hashlib
import os
from types import SimpleNamespace

import pytest

from groundup.config.errors import UserError
from groundup.files import atomic
from groundup.files.atomic import make_folder, new_folder, recover, remove_folder
from groundup.files.manifest import verify_folder

fcntl = pytest.importorskip("fcntl")


@pytest.fixture
def flushed(monkeypatch):
    """What files were flushed with."""
    calls = []

    def told(how):
        return lambda descriptor, *_: calls.append(how)

    monkeypatch.setattr(os, "fsync", told("fsync"))
    return calls, told


def test_a_mac_flushes_its_drive_too(tmp_path, monkeypatch, flushed):
    calls, told = flushed
    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", told("F_FULLFSYNC"))
    atomic.write_synced(tmp_path / "a", b"x")
    assert calls == ["F_FULLFSYNC"]


def test_where_a_disk_refuses_that_fsync_remains(tmp_path, monkeypatch, flushed):
    def refuse(descriptor, command):
        raise OSError(errno.ENOTSUP, "not supported")

    calls, _ = flushed
    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    atomic.write_synced(tmp_path / "a", b"x")
    assert calls == ["fsync"]


def test_windows_flushes_only_what_may_be_written(tmp_path, monkeypatch):
    def fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(atomic, "os", SimpleNamespace(**{**vars(os), "name": "nt"}))
    with atomic.new_folder(tmp_path / "made") as folder:
        (folder / "a").write_bytes(b"x")
    verify_folder(tmp_path / "made", "a")


def test_folders_above_one_that_fails_are_gone_where_they_were_made_for_it(tmp_path):
    def fill():
        with new_folder(tmp_path / "there" / "new" / "deep" / "model"):
            raise UserError("refused")

    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="refused"):
        fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_folder_is_made_where_a_link_leads(tmp_path):
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.mkdir(parents=True)
    link.symlink_to(real)
    for text in ("first", "second"):
        with new_folder(link) as folder:
            assert folder.parent == real.parent
            (folder / "a").write_text(text)
    assert link.readlink() == real
    assert (real / "a").read_text() == "second"
    real.rename(real.with_name(".old-real"))  # as after a crash between the two renames
    recover(link)
    assert (link / "a").read_text() == "second"
    assert [sorted(p.name for p in at.iterdir()) for at in (tmp_path, real.parent)] == [["disk", "link"], ["real"]]


def test_what_a_link_leads_to_is_not_removed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    remove_folder(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["real"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file where a folder is needed"):
        make_folder(tmp_path / "file" / "run")


@pytest.mark.parametrize("advice", [True, False])
def test_large_files_are_whole_with_and_without_advice_to_the_system(tmp_path, monkeypatch, advice):
    if not advice:
        monkeypatch.delattr(os, "posix_fadvise", raising=False)  # as on macOS and Windows
    monkeypatch.setattr(atomic, "_PIECE", 4)
    data = memoryview(b"0123456789")
    told = atomic.write_hashed(tmp_path / "large", [data])
    assert (tmp_path / "large").read_bytes() == data
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
