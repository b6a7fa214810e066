import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.cli.main import main
from groundup.config.data import DataConfig
from groundup.config.errors import UserError
from groundup.corpora.text_files import TextFiles, read_text
from groundup.prepare.corpus import open_corpus

TEXT = "".join(f"line {i}\n" for i in range(100))


def read(path, val_fraction=0.1):
    source = TextFiles(path, val_fraction)
    return [(d.split, d.text) for part in source.parts() for d in source.read(part, {})]


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_characters="\0\r\ufeff", codec="utf-8"), min_size=2), st.floats(0.01, 0.99))
def test_nothing_is_lost_and_both_sides_have_text(tmp_path_factory, text, val_fraction):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode())
    (train_name, train), (val_name, val) = read(path, val_fraction)
    assert (train_name, val_name) == ("train", "val")
    assert train + val == text
    assert train
    assert val


def test_the_tail_from_the_next_line_on_is_validation(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    (_, train), (_, val) = read(path)
    assert train.endswith("\n")
    assert val == "".join(f"line {i}\n" for i in range(91, 100))
    path.write_text("x" * 100)
    assert [len(text) for _, text in read(path)] == [90, 10]
    path.write_text("x" * 99 + "\n")
    assert [len(text) for _, text in read(path)] == [90, 10]


def test_a_folder_is_read_by_name(tmp_path):
    for name in ("b.txt", "a.md", "sub/c.txt", "ignored.py", "d.TXT"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name * 10)
    assert [part.name for part in TextFiles(tmp_path, 0.1).parts()] == ["a.md", "b.txt", "d.TXT", "c.txt"]


def test_the_description_follows_the_contents(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    seen = [TextFiles(path, 0.1).describe(), TextFiles(path, 0.2).describe()]
    path.write_text("two")
    seen.append(TextFiles(path, 0.1).describe())
    path.rename(tmp_path / "b.txt")
    assert len({repr(d) for d in seen}) == 3
    assert TextFiles(tmp_path / "b.txt", 0.1).describe() == seen[2]


def test_line_ends_and_marks_are_made_equal(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read_text(path) == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.txt is empty"),
        (b"abc\0def", "a.txt is not text: byte 3 is zero"),
        ("text".encode("utf-16"), "a.txt is UTF-16; convert it first, for example with iconv -f utf-16 -t utf-8"),
        (b"PK\x03\x04\x00\x00", "a.txt is not text: byte 4 is zero"),
        (b"caf\xe9 au lait", "a.txt is not UTF-8: byte 3 is 0xe9; convert it first"),
        (b"cut \xe6\xbc", "a.txt is not UTF-8: byte 4 is 0xe6"),
        (b"\xed\xa0\x80 surrogate", "a.txt is not UTF-8: byte 0 is 0xed"),
        (b"x", "too few to be split into training and validation"),
    ],
)
def test_what_is_no_text_is_told_in_one_line(tmp_path, capsys, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_bytes(data)
    status = main(["train", "shakespeare", "--data.source=text", "--data.path=a.txt", "--max-steps=1"])
    error = capsys.readouterr().err
    assert status == 1
    assert message in error
    assert error.count("\n") == 1


def test_too_short_for_one_block(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("short\ntext\n")
    words = ["--data.source=text", "--data.path=a.txt", "--max-steps=1", "--model.block-size=16"]
    assert main(["train", "shakespeare", *words, "--tokens-per-step=256", "--runtime.compile=off"]) == 1
    error = capsys.readouterr().err
    assert "the training split has 10 tokens, too few for one block of 16" in error
    assert error.count("\n") == 1


def test_missing_and_unreadable(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="does not exist"):
        TextFiles(tmp_path / "absent", 0.1).parts()
    with pytest.raises(UserError, match=r"holds no \.txt or \.md files"):
        TextFiles(tmp_path, 0.1).parts()
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything: ask another way
        path.unlink()
        path.symlink_to("/proc/self/mem")
        with pytest.raises(UserError, match=r"cannot read .*a\.txt"):
            read_text(path)
        return
    with pytest.raises(UserError, match=r"cannot read .*a\.txt: Permission denied"):
        TextFiles(path, 0.1).parts()


def test_open_corpus_prepares_once_and_again_when_the_text_changes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(TEXT)
    config = DataConfig(source="text", path=path, cache_dir=tmp_path / "cache")
    first = open_corpus(config)
    assert open_corpus(config).dir == first.dir
    assert first.split("train").n_tokens + first.split("val").n_tokens == len(TEXT)
    path.write_text(TEXT + "more\n")
    second = open_corpus(config)
    assert second.dir != first.dir
    assert second.index.fingerprint != first.index.fingerprint
    assert len(list((tmp_path / "cache").iterdir())) == 2
