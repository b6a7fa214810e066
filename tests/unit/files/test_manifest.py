import subprocess

import pytest

from groundup.config.errors import UserError
from groundup.files.atomic import new_folder
from groundup.files.manifest import MANIFEST, file_facts, has_digest, read_manifest, verify_folder


def test_git_and_sha256sum_name_the_same_contents(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 5000)
    git = subprocess.run(["git", "hash-object", path], capture_output=True, text=True, check=True).stdout.strip()
    sha = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert has_digest(path, git)
    assert has_digest(path, sha)
    assert file_facts(path) == {"bytes": 1_280_000, "sha256": sha}
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert not has_digest(path, git)
    assert not has_digest(path, sha)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "a").unlink(), "a is missing"),
        (lambda folder: (folder / "a").write_bytes(b"xyz"), "a is damaged: 3 bytes instead of 2"),
        (lambda folder: (folder / "a").write_bytes(b"xz"), f"a is damaged: its SHA-256 is not the one in {MANIFEST}"),
        (lambda folder: (folder / MANIFEST).unlink(), "No such file"),
    ],
)
def test_what_a_manifest_does_not_vouch_for_is_named(tmp_path, spoil, message):
    with new_folder(tmp_path / "made") as folder:
        (folder / "a").write_bytes(b"xy")
        (folder / "b").write_bytes(b"")
    assert sorted(read_manifest(tmp_path / "made")) == ["a", "b"]
    verify_folder(tmp_path / "made", "a", "b")
    spoil(tmp_path / "made")
    with pytest.raises(UserError, match=message):
        verify_folder(tmp_path / "made", "a")


def test_a_manifest_must_name_what_will_be_read(tmp_path):
    with new_folder(tmp_path / "made") as folder:
        (folder / "a").write_bytes(b"xy")
    with pytest.raises(UserError, match=f"{MANIFEST} is damaged: it does not name c"):
        verify_folder(tmp_path / "made", "a", "c")
