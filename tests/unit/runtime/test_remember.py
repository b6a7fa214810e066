"""Choices that are kept for the next process, also beside other commands."""

import json

import pytest
from filelock import FileLock

from groundup.runtime import remember
from groundup.runtime.remember import cache_folder, remembered


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def choose(key, choice="a", choices=("a", "b")):
    return remembered("choices.json", key, choices, lambda: choice)


def unasked():
    pytest.fail("it is remembered")


def test_what_another_command_chose_meanwhile_is_kept():
    assert remembered("choices.json", "ours", ("a", "b"), lambda: choose("theirs")) == "a"
    for key in ("ours", "theirs"):
        assert remembered("choices.json", key, ("a", "b"), unasked) == "a"


def test_what_is_no_choice_here_is_measured_and_may_be_one_elsewhere():
    choose("one", "c", ("a", "c"))
    assert choose("two") == "a"
    assert remembered("choices.json", "one", ("a", "c"), unasked) == "c"
    assert choose("one", "b") == "b"


@pytest.mark.parametrize("damaged", ["", "[1]", '{"key": ["a"]}'])
def test_a_damaged_file_is_replaced(damaged):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "choices.json").write_text(damaged)
    assert choose("key") == "a"
    assert json.loads((cache_folder() / "choices.json").read_text()) == {"key": "a"}


def test_where_nothing_can_be_locked_or_written_a_choice_is_made_all_the_same(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(remember, "LOCK_SECONDS", 0)
    cache_folder().mkdir(parents=True)
    with FileLock(cache_folder() / ".choices.json.lock"):
        assert choose("key") == "a"
    assert not (cache_folder() / "choices.json").exists()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert choose("key", "b") == "b"
    assert capfd.readouterr() == ("", "")
