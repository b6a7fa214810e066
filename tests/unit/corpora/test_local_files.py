import collections
import gzip
import json
import os
import pickle

import pytest

from groundup.config.data import ReadConfig
from groundup.config.errors import UsageError, UserError
from groundup.corpora import local_files
from groundup.corpora.local_files import LocalFiles
from groundup.files import manifest


def texts_of(source):
    return [document.text for part in source.parts() for document in source.read(part, {})]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "corpus" / "deep" / ".cache").mkdir(parents=True)
    for name in ("b.txt", "a.md", "deep/c.txt", ".hidden.txt", "deep/.cache/d.txt", "notes.pdf", "e.json"):
        (tmp_path / "corpus" / name).write_text(f"text of {name}")
    (tmp_path / "corpus" / "f.jsonl").write_text(json.dumps({"text": "text of f.jsonl"}))
    return tmp_path / "corpus"


def test_a_folder_is_read_by_name_without_what_is_hidden(folder):
    expected = [f"text of {name}" for name in ("a.md", "b.txt", "deep/c.txt", "f.jsonl")]
    assert texts_of(LocalFiles(str(folder))) == expected
    assert texts_of(LocalFiles(f"{folder}/")) == expected


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("*.txt", ["b.txt"]), ("**/*.txt", ["b.txt", "deep/c.txt"]), ("[a-b].*", ["a.md", "b.txt"]), ("b.txt", ["b.txt"])],
)
def test_globs(folder, pattern, names):
    assert texts_of(LocalFiles(f"{folder}/{pattern}")) == [f"text of {name}" for name in names]


@pytest.mark.parametrize("pattern", ["deep/*.txt", "deep/**", "**/c*", "../d [ab]/d*/*", "[d]eep/c.txt"])
def test_the_name_of_the_working_folder_is_no_part_of_a_glob(folder, monkeypatch, pattern):
    folder.rename(here := folder.parent / "d [ab]")
    (folder.parent / "d a" / "deep").mkdir(parents=True)
    (folder.parent / "d a" / "deep" / "c.txt").write_text("a sibling's")
    monkeypatch.chdir(here)
    if "ab" in pattern:
        pattern = pattern.replace("[ab]", "[[]ab]")
    assert LocalFiles(pattern).files() == [here / "deep" / "c.txt"]


def test_in_such_a_folder_a_file_that_is_gone_is_no_glob(folder, monkeypatch):
    folder.rename(here := folder.parent / "d [ab]")
    monkeypatch.chdir(here)
    for name in ("gone.txt", "*/../gone.txt"):
        with pytest.raises(UserError, match=r"gone\.txt does not exist"):
            LocalFiles(name).files()


def test_small_files_share_a_part_and_large_ones_are_cut(folder, monkeypatch):
    assert len(LocalFiles(str(folder)).parts()) == 1
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 30)
    assert [len(part) for part in LocalFiles(str(folder)).parts()] == [2, 1, 1]
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 1 << 20)
    monkeypatch.setattr("groundup.formats.spans.MAX_SPANS", 3)
    assert [len(part) for part in LocalFiles(str(folder)).parts()] == [3, 1]


def test_the_description_follows_names_and_contents_only(folder, tmp_path):
    before = LocalFiles(str(folder)).describe()
    os.utime(folder / "a.md", (1, 1))
    moved = folder.rename(tmp_path / "elsewhere")
    assert LocalFiles(str(moved)).describe() == before
    (moved / "a.md").rename(moved / "a0.md")
    renamed = LocalFiles(str(moved)).describe()
    assert renamed != before
    (moved / "b.txt").write_text("Text of b.txt")
    assert LocalFiles(str(moved)).describe() != renamed
    assert LocalFiles(str(moved), ReadConfig(text_column="body")).describe()["text_column"] == "body"


def test_a_large_file_is_known_by_sixteen_places(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "SAMPLE_BYTES", 10)
    monkeypatch.setattr(local_files, "WHOLE_BYTES", 160)
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(320))
    before = LocalFiles(str(path)).describe()["sha256"]
    changed = []
    for at in range(320):
        data = bytearray(320)
        data[at] = 1
        path.write_bytes(data)
        changed.append(LocalFiles(str(path)).describe()["sha256"] != before)
    assert changed[:10] == changed[-10:] == [True] * 10
    assert sum(changed) == 160
    path.write_bytes(bytes(319))
    assert LocalFiles(str(path)).describe()["sha256"] != before


def test_what_cannot_be_read_is_named(folder, tmp_path):
    for pattern, message in (
        (tmp_path / "none", "none does not exist"),
        (tmp_path / "no*ne", "no file matches"),
        (folder / "notes.pdf", "cannot tell the format of notes.pdf"),
        (folder / "deep" / ".cache" / "..", "c.txt"),
    ):
        source = LocalFiles(str(pattern))
        if message == "c.txt":
            assert source.files() == [folder / "deep" / "c.txt"]
            continue
        with pytest.raises(UserError, match=message):
            source.parts()


def test_a_file_that_is_gone_when_it_is_read_is_named(folder):
    source = LocalFiles(str(folder))
    (part,) = source.parts()
    (folder / "b.txt").unlink()
    with pytest.raises(UserError, match=r"cannot read .*b\.txt: No such file"):
        list(source.read(part, {}))


@pytest.fixture
def closed(folder, monkeypatch):
    """A folder that cannot be looked into, for root as well."""
    scandir, access = os.scandir, os.access

    def forbidden(path):
        return str(path).rstrip("/") == f"{folder}/deep"

    def scan(path="."):
        if forbidden(path):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "access", lambda path, mode: not forbidden(path) and access(path, mode))
    return f"{folder}/deep/"


@pytest.mark.parametrize("pattern", ["", "/deep", "/**/*.txt", "/*/*.txt", "/*/c*"])
def test_a_folder_that_cannot_be_read_is_named_or_counted(folder, closed, pattern):
    with pytest.raises(UserError, match=f"^cannot read {closed}: "):
        texts_of(LocalFiles(f"{folder}{pattern}"))
    source, skipped = LocalFiles(f"{folder}{pattern}", ReadConfig(bad_files="skip")), {}
    read = [document.text for part in source.parts() for document in source.read(part, skipped)]
    assert "text of deep/c.txt" not in read
    assert [reason.startswith(f"file that cannot be read: cannot read {closed}: ") for reason in skipped] == [True]


def test_files_of_which_nothing_can_be_known_are_named(folder, monkeypatch):
    stat = os.stat

    def refuse(path, **options):
        if str(path).startswith(f"{folder}/deep/"):
            raise PermissionError(13, "Permission denied", path)
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    assert LocalFiles(str(folder)).files() == [folder / name for name in ("a.md", "b.txt", "deep/c.txt", "f.jsonl")]


@pytest.mark.parametrize("pattern", ["", "/**/*.txt"])
def test_links_to_folders_are_told_where_they_are_not_entered(folder, tmp_path, pattern, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "o.txt").write_text("text of the other")
    (folder / "link").symlink_to(tmp_path / "other")
    (folder / "deep" / "link").symlink_to(tmp_path / "other")
    (folder / "deep" / "back").symlink_to(folder)
    entered = ["text of the other"] * (pattern != "")
    for _ in range(2):  # the line comes once
        assert [text for text in texts_of(LocalFiles(f"{folder}{pattern}")) if "other" in text] == entered
    told = f"groundup: {folder}: links to folders are entered only by a glob with **: {folder}/link and 1 more\n"
    assert capsys.readouterr().err == (told if not pattern else "")


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("runs/own", ["config.json", "run.json", "metrics.jsonl", "samples/10.txt", "profile/summary.txt"]),
        ("runs/killed", ["config.json", "metrics.jsonl"]),
        ("models/own", ["config.json", "model.safetensors", "tokenizer.json", "README.md"]),
        ("data/own", ["index.json", "tokenizer.json", "README.md"]),
    ],
)
@pytest.mark.parametrize("pattern", ["", "/**/*.[tjm]*"])
def test_what_groundup_writes_beside_a_text_is_not_learned(folder, place, names, pattern, capsys):
    (folder / "notes.pdf").unlink()
    before = LocalFiles(f"{folder}{pattern}").describe()
    for name in names:
        (folder / place / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / place / name).write_text('{"text": "of ours"}')
    assert LocalFiles(f"{folder}{pattern}").describe() == before
    assert LocalFiles(f"{folder}{pattern}").describe() == before
    told = f"groundup: {folder}{pattern}: runs, models and prepared data are not read as text: {folder}/{place}\n"
    assert capsys.readouterr().err == told
    named = LocalFiles(str(folder / place))  # what is named is meant
    assert len(named.files()) == len([name for name in names if not name.endswith(".safetensors")])


@pytest.mark.parametrize("suffix", [".jsonl", ".CSV", ".parquet", ".json.gz"])
def test_records_are_never_read_as_prose(tmp_path, suffix):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UsageError, match=rf"text-suffixes {suffix}: such files hold records"):
        LocalFiles(str(tmp_path), ReadConfig(text_suffixes=(suffix,))).parts()


@pytest.mark.parametrize(
    ("name", "advice"), [("a.txt.xz", "with xz -d"), ("b.pdf", "with pdftotext"), ("c.zip", "with unzip")]
)
def test_what_is_no_text_is_told_how_it_becomes_some(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"unpack it first, {advice}"):
        LocalFiles(str(tmp_path / name)).parts()


def all_of(source):
    """Texts and what was left out."""
    skipped = {}
    return [document.text for part in source.parts() for document in source.read(part, skipped)], skipped


@pytest.fixture
def opened(monkeypatch):
    """How often each file was opened."""
    counts = collections.Counter()
    real = local_files._opened

    def counted(name):
        counts[os.path.basename(name)] += 1  # noqa: PTH119
        return real(name)

    monkeypatch.setattr(local_files, "_opened", counted)
    return counts


def test_a_small_corpus_is_read_once_and_kept(folder, opened):
    (folder / "f.jsonl").write_text('{"text": "text of f.jsonl"}\n{"text": 3}\n')
    (folder / "e.json").unlink()
    source = LocalFiles(str(folder))
    before = source.describe()
    (folder / "a.md").write_text("another text")
    first = all_of(source)
    assert all_of(source) == first
    assert first[0] == [f"text of {name}" for name in ("a.md", "b.txt", "deep/c.txt", "f.jsonl")]
    assert list(first[1].values()) == [1]
    assert opened == {"a.md": 1, "b.txt": 1, "c.txt": 1, "f.jsonl": 1}
    assert LocalFiles(str(folder)).describe() != before


def test_what_is_not_small_is_read_each_time(folder, opened, monkeypatch):
    monkeypatch.setattr(local_files, "KEPT_BYTES", 40)
    source = LocalFiles(str(folder / "*.txt"))
    large = LocalFiles(str(folder))
    for each in (source, source, large, large):
        all_of(each)
    assert opened["b.txt"] == 3
    assert opened["a.md"] == 2


def test_a_small_file_that_unpacks_to_much_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(local_files, "KEPT_BYTES", 100)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a" * 1_000))
    source = LocalFiles(str(tmp_path))
    assert all_of(source) == all_of(source) == (["a" * 1_000], {})
    assert not source._documents


def test_workers_list_nothing_and_keep_nothing(folder, monkeypatch):
    source = LocalFiles(str(folder))
    parts = source.parts()
    theirs = pickle.loads(pickle.dumps(source))
    monkeypatch.setattr(local_files, "find_files", None)
    assert [document.text for part in parts for document in theirs.read(part, {})] == texts_of(source)
    assert not theirs._documents
    assert not theirs._contents
