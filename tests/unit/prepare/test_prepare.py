"""What becomes of documents: every property of a preparation that one process can show."""

import errno
import gzip
import hashlib
import io
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from groundup.config.data import DataConfig, ReadConfig, ShardConfig
from groundup.config.errors import UsageError, UserError
from groundup.corpora.local_files import LocalFiles
from groundup.data.dataset import TokenDataset
from groundup.formats import plain_text
from groundup.formats.document import Document
from groundup.prepare import hold_out as module
from groundup.prepare.corpus import open_corpus
from groundup.prepare.prepare import prepare
from groundup.prepare.progress import PrepareProgress
from groundup.prepare.report import Progress, Spoken, listing

SMALL = ShardConfig(val_rule="head", shard_tokens=300, val_fraction=0.2)


def stream(folder, split):
    """All ids of a split, read without our reader."""
    parts = [np.fromfile(f, dtype="<u2", offset=256) for f in sorted(folder.glob(f"{split}-*.bin"))]
    return np.concatenate(parts).tolist() if parts else []


def texts_of(folder, split, tokenizer):
    """The documents of a split, cut at the separators."""
    return tokenizer.decode(stream(folder, split)).split("\x1f")[:-1]


def run_tasks(source, tokenizer, folder, layout, order):
    for index, count in order:
        result = prepare(source, tokenizer, folder, layout, only=(index, count))
    return result


@pytest.mark.parametrize("seed", range(4))
def test_the_stream_is_the_documents_in_order(tmp_path, corpus, random_texts, separated, seed):
    texts = random_texts(seed)
    index = prepare(corpus(texts), separated, tmp_path / "data", SMALL)
    ids = [i for part in texts for text in part for i in [*separated.encode(text), separated.eot_id]]
    val = min(300, int(0.2 * len(ids)))
    assert stream(tmp_path / "data", "val") == ids[:val]
    assert stream(tmp_path / "data", "train") == ids[val:]
    assert all(info.n_tokens == 300 for info in index.shards[1:-1])
    assert {p.name for p in (tmp_path / "data").iterdir()} == {
        "index.json",
        "tokenizer.json",
        *(info.file for info in index.shards),
    }
    for info in index.shards:
        data = (tmp_path / "data" / info.file).read_bytes()
        held = np.frombuffer(data, dtype="<u2", offset=256)
        text = "".join(separated.symbols[i] for i in held if i != separated.eot_id)
        assert info.sha256 == hashlib.sha256(data).hexdigest()
        assert info.n_tokens == len(held)
        assert info.n_bytes == len(text.encode())
        assert info.n_documents == (held == separated.eot_id).sum()
        assert info.max_id == held.max()


@pytest.mark.fault(
    "C5",
    "a preparation shared by 1 to 4 tasks that run in any order",
    "the same bytes as by one",
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.lists(st.text("ab\n ß漢", max_size=30), max_size=6), min_size=1, max_size=5),
    shard_tokens=st.integers(1, 60),
    n_tasks=st.integers(1, 4),
    data=st.data(),
)
def test_bytes_depend_on_input_and_settings_alone(
    tmp_path_factory, corpus, separated, contents, texts, shard_tokens, n_tasks, data
):
    folder = tmp_path_factory.mktemp("prepare")
    source, layout = corpus(texts), ShardConfig(val_rule="head", shard_tokens=shard_tokens, val_fraction=0.3)
    try:
        prepare(source, separated, folder / "whole", layout)
    except UserError as error:
        assert "too few" in str(error)  # noqa: PT017
        return
    order = data.draw(st.permutations(range(n_tasks)))
    result = run_tasks(source, separated, folder / "shared", layout, [(k, n_tasks) for k in order])
    assert result is not None
    assert contents(folder / "shared") == contents(folder / "whole")


def test_tasks_in_any_order_and_again(tmp_path, corpus, random_texts, separated, contents):
    source = corpus(random_texts(1, n_parts=7))
    prepare(source, separated, tmp_path / "whole", SMALL)
    for number, order in enumerate(itertools.permutations(range(3))):
        folder = tmp_path / str(number)
        for k in order[:2]:
            assert prepare(source, separated, folder, SMALL, only=(k, 3)) is None
            assert prepare(source, separated, folder, SMALL, only=(k, 3)) is None
            assert not (folder / "index.json").exists()
        assert prepare(source, separated, folder, SMALL, only=(order[2], 3)) is not None
        assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.fault(
    "C6",
    "two tasks do the same work at once",
    "both end well, the bytes are those of one",
)
def test_a_task_that_another_one_overtakes_ends_well(tmp_path, corpus, random_texts, separated, contents):
    """While task 0 copies its second shard, task 1 finds the rest, finishes and removes the parts."""
    source = corpus(random_texts(2, n_parts=6))
    folder = tmp_path / "data"
    prepare(source, separated, tmp_path / "whole", SMALL)
    assert prepare(source, separated, folder, SMALL, only=(1, 2)) is None
    overtaken = []

    def overtake(progress):
        if progress.phase == "assemble" and not overtaken:
            overtaken.append(progress)
            assert prepare(source, separated, folder, SMALL, only=(1, 2)) is not None

    index = prepare(source, separated, folder, SMALL, only=(0, 2), progress=overtake)
    assert len(overtaken) == 1
    assert index is not None
    assert contents(folder) == contents(tmp_path / "whole")


def test_documents_longer_than_a_shard(tmp_path, corpus, separated):
    texts = [["a" * 5000, "b"], ["c" * 1234]]
    index = prepare(
        corpus(texts), separated, tmp_path, ShardConfig(val_rule="head", shard_tokens=100, val_fraction=0.01)
    )
    assert [info.n_tokens for info in index.shards if info.split == "train"][:-1] == [100] * 61
    joined = separated.decode(stream(tmp_path, "val") + stream(tmp_path, "train"))
    assert joined == "a" * 5000 + "\x1fb\x1f" + "c" * 1234 + "\x1f"
    assert sum(info.n_documents for info in index.shards) == 3
    TokenDataset(tmp_path)


def test_the_hash_rule(tmp_path, corpus, separated):
    """Membership is a function of the text alone: not of its place, nor of the other documents."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh"), size=20)) for _ in range(2000)]
    layout = ShardConfig(shard_tokens=10_000, val_rule="hash", val_fraction=0.1)
    prepare(corpus([texts[:700], texts[700:]]), separated, tmp_path / "a", layout)
    val = texts_of(tmp_path / "a", "val", separated)
    expected = [t for t in texts if int(hashlib.sha256(t.encode()).hexdigest()[:16], 16) / 2**64 < 0.1]
    assert val == expected
    assert texts_of(tmp_path / "a", "train", separated) == [t for t in texts if t not in set(expected)]
    assert 150 < len(val) < 250
    rng.shuffle(texts)
    prepare(corpus([texts[:999]]), separated, tmp_path / "b", layout)
    assert set(texts_of(tmp_path / "b", "val", separated)) == set(texts[:999]) & set(val)


@pytest.mark.parametrize("rule", ["hash", "documents"])
def test_a_document_that_is_read_in_pieces_is_whole_on_one_side(tmp_path, monkeypatch, separated, rule):
    for name, value in (("DOCUMENT_BYTES", 100), ("LINE", 20), ("BEGINNING", 20)):
        monkeypatch.setattr(plain_text, name, value)
    monkeypatch.setattr(module, "MANY", 3)
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcdefgh"), size=size)) for size in rng.choice([30, 250, 700], size=60)]
    (tmp_path / "texts").mkdir()
    for n, text in enumerate(texts):
        (tmp_path / "texts" / f"{n:02d}.txt").write_text(text)
    source = LocalFiles(str(tmp_path / "texts"))
    prepare(source, separated, tmp_path / "data", ShardConfig(val_rule=rule, val_fraction=0.4))
    train, val = (texts_of(tmp_path / "data", split, separated) for split in ("train", "val"))
    assert sorted(train + val) == sorted(texts)
    assert all(any(len(text) > 100 for text in side) for side in (train, val))


@pytest.mark.parametrize("pieces", [100, 10_000])
@pytest.mark.parametrize("place", range(3))
def test_what_is_left_of_the_document_that_is_cut_comes_last(tmp_path, monkeypatch, separated, contents, place, pieces):
    """No document goes on from the cut, and no end is learned there; in pieces of several parts, too."""
    for name, value in (("DOCUMENT_BYTES", pieces), ("LINE", 20), ("BEGINNING", 20)):
        monkeypatch.setattr(plain_text, name, value)
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 250)
    others = ["a" * 130 + "\n", "b" * 70 + "\n"]
    long = "".join(f"{'cdefghij'[k % 8] * (k % 13)}\n" for k in range(200))
    texts = [*others[:place], long, *others[place:]]
    (tmp_path / "texts").mkdir()
    for n, text in enumerate(texts):
        (tmp_path / "texts" / f"{n}.txt").write_text(text)
    layout = ShardConfig(shard_tokens=400, val_rule="documents", val_fraction=0.3)
    source = LocalFiles(str(tmp_path / "texts"))
    index = prepare(source, separated, tmp_path / "data", layout)
    *closed, head = separated.decode(stream(tmp_path / "data", "train")).split("\x1f")
    assert closed == others
    assert head + separated.decode(stream(tmp_path / "data", "val")) == long + "\x1f"
    counts = {
        split: sum(info.n_documents for info in index.shards if info.split == split) for split in ("train", "val")
    }
    assert counts == {"train": 3, "val": 1}
    order = [(k, 3) for k in (2, 0, 1)]
    assert run_tasks(LocalFiles(source.pattern), separated, tmp_path / "shared", layout, order) == index
    assert contents(tmp_path / "shared") == contents(tmp_path / "data")


@pytest.mark.parametrize("pieces", [100, 10_000])
@pytest.mark.parametrize("names", ["ab", "aab", "aba", "abba"])
def test_equal_documents_are_cut_alike(tmp_path, monkeypatch, separated, names, pieces):
    """Nothing of what is validation is learned from another copy."""
    for name, value in (("DOCUMENT_BYTES", pieces), ("LINE", 20), ("BEGINNING", 20)):
        monkeypatch.setattr(plain_text, name, value)
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 250)
    texts = {"a": "".join(f"{'cdefghij'[k % 8] * (k % 13)}\n" for k in range(200)), "b": "b" * 70 + "\n"}
    (tmp_path / "texts").mkdir()
    for n, name in enumerate(names):
        (tmp_path / "texts" / f"{n}.txt").write_text(texts[name])
    layout = ShardConfig(shard_tokens=400, val_rule="documents", val_fraction=0.2)
    index = prepare(LocalFiles(str(tmp_path / "texts")), separated, tmp_path / "data", layout)
    tail, *others, nothing = separated.decode(stream(tmp_path / "data", "val")).split("\x1f")
    head = texts["a"].removesuffix(tail)
    n_copies = names.count("a")
    assert (len(tail) + len(head), set(others) <= {tail}, len(others)) == (len(texts["a"]), True, n_copies - 1)
    assert not nothing
    assert 0.1 < len(tail) / len(texts["a"]) < 0.3
    documents = [texts["b"]] * names.count("b") + [head] * n_copies
    assert separated.decode(stream(tmp_path / "data", "train")).split("\x1f") == documents
    assert sum(info.n_documents for info in index.shards if info.split == "train") == len(documents)


@pytest.mark.parametrize(("packed", "part"), [(False, 10_000), (False, 100), (True, 10_000)])
def test_what_was_read_of_a_file_that_is_left_out_ends_there(tmp_path, monkeypatch, separated, packed, part):
    monkeypatch.setattr(plain_text, "DOCUMENT_BYTES", 100)
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", part)
    (tmp_path / "texts").mkdir()
    long = b"".join(b"%c\n" % (97 + k % 8) * 3 for k in range(60)) + b"\xff"
    name, data = ("0.txt.gz", gzip.compress(long)) if packed else ("0.txt", long)
    (tmp_path / "texts" / name).write_bytes(data)
    (tmp_path / "texts" / "1.txt").write_text("second\n")
    source = LocalFiles(str(tmp_path / "texts"), ReadConfig(bad_files="skip"))
    index = prepare(source, separated, tmp_path / "data", ShardConfig(val_rule="head", val_fraction=0.1))
    ids = [id for split in ("val", "train") for id in stream(tmp_path / "data", split)]
    first, second, nothing = separated.decode(ids).split("\x1f")
    assert long.decode(errors="ignore").startswith(first)
    assert len(first) >= 100
    assert (second, nothing) == ("second\n", "")
    assert sum(info.n_documents for info in index.shards) == 2


def test_names_of_files_that_are_no_utf8_stop_nothing(tmp_path, separated):
    folder = tmp_path / "texts\udce9"
    folder.mkdir()
    (folder / "a\udce9.txt").write_text("abc\n" * 99)
    (folder / "b\udce9.txt").write_text("\0")
    (folder / "c\udce9.jsonl").write_text('{"text": "abc"}\n{"text": 1}')
    source = LocalFiles(str(folder), ReadConfig(bad_files="skip"))
    skipped = prepare(source, separated, tmp_path / "data").skipped
    assert skipped == {
        rf"file that cannot be read: {tmp_path}/texts\udce9/b\udce9.txt is not text: byte 0 is zero": 1,
        r"text that is not a string in c\udce9.jsonl": 1,
    }
    assert TokenDataset(tmp_path / "data").index.skipped == skipped
    (folder / "a\udce9.txt").rename(folder / "a.txt")
    assert LocalFiles(str(folder)).describe()["sha256"] != source.describe()["sha256"]


@pytest.mark.parametrize(
    ("texts", "most"),
    [
        (["a", "a"], 2),  # nothing to cut
        (["yes\n"] * 400 + ["perhaps not\n"], 80),  # often there, and no copies
        (["yes\n", "no\n"] * 400, 120),
    ],
)
def test_short_texts_that_are_often_there_are_held_out_whole(tmp_path, corpus, separated, texts, most):
    prepare(corpus([texts]), separated, tmp_path, ShardConfig(val_rule="documents", val_fraction=0.04))
    train, val = (separated.decode(stream(tmp_path, split)) for split in ("train", "val"))
    assert sorted((train + val).split("\x1f")[:-1]) == sorted(texts)
    assert 0 < len(val.replace("\x1f", "")) <= most


def test_one_document_that_is_cut_is_no_more_than_it_was(tmp_path, corpus, separated):
    text = "".join(f"{'abc'[k % 3] * (k % 7)}\n" for k in range(99))
    index = prepare(corpus([[text]]), separated, tmp_path, ShardConfig(val_rule="documents", val_fraction=0.1))
    assert separated.decode(stream(tmp_path, "train") + stream(tmp_path, "val")) == text + "\x1f"
    assert {info.split: info.n_documents for info in index.shards} == {"train": 0, "val": 1}


def test_labels_of_the_source_decide(tmp_path, corpus, separated):
    documents = [[Document("aaa", "train"), Document("bb", "val"), Document("c", "train")], [Document("dd", "val")]]
    prepare(corpus(documents), separated, tmp_path, ShardConfig(val_rule="hash", val_fraction=0.5))
    assert texts_of(tmp_path, "train", separated) == ["aaa", "c"]
    assert texts_of(tmp_path, "val", separated) == ["bb", "dd"]


def test_documents_that_cannot_be_used_are_counted(tmp_path, corpus, separated):
    texts = [["good", "", "half \ud800 a pair"], ["\udc00", "also good", "\ud83d"]]
    index = prepare(corpus(texts), separated, tmp_path, ShardConfig(val_rule="head", val_fraction=0.3))
    assert index.skipped == {"empty document": 1, "lone surrogate: not Unicode text": 3}
    assert separated.decode(stream(tmp_path, "val") + stream(tmp_path, "train")) == "good\x1falso good\x1f"


@pytest.mark.fault(
    "C11",
    "there is nothing to prepare",
    "one line",
)
@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "corpus has no documents"),
        ([[]], "0 tokens are too few"),
        ([["", ""]], "0 tokens are too few"),
        ([["a"]], "2 tokens are too few to be split into training and validation; use more text or a larger share"),
    ],
)
def test_nothing_to_prepare_is_told(tmp_path, corpus, separated, texts, message):
    with pytest.raises(UserError, match=message):
        prepare(corpus(texts), separated, tmp_path / "data", SMALL)
    assert not (tmp_path / "data").exists()  # nothing is in the way of a second try with other settings


def test_too_few_documents_for_hashes_are_counted_as_documents(tmp_path, corpus, separated):
    layout = ShardConfig(val_rule="hash", val_fraction=0.5)
    message = (
        r"^1 document is too few .*; --val-rule hash puts each into one .* --separator, or use --val-rule documents"
    )
    with pytest.raises(UserError, match=message):
        prepare(corpus([["a text " * 1000]]), separated, tmp_path / "data", layout)


def test_too_few_tokens_say_what_was_skipped(tmp_path, corpus, separated):
    with pytest.raises(UserError, match=r"validation \(skipped 2: empty document\); use more text"):
        prepare(corpus([["", ""]]), separated, tmp_path / "data", SMALL)


def test_work_that_came_to_nothing_is_not_in_the_way(tmp_path, corpus, random_texts, separated, contents):
    texts = random_texts(6)
    prepare(corpus(texts), separated, tmp_path / "whole", SMALL)
    folder = tmp_path / "data"
    everywhere = {k: UserError("no record has the key 'txt'") for k in range(len(texts))}
    with pytest.raises(UserError, match="no record"):
        prepare(corpus(texts, trouble=everywhere), separated, folder, ShardConfig(val_rule="head", shard_tokens=299))
    prepare(corpus(texts), separated, folder, SMALL)
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path, corpus, random_texts, separated):
    (tmp_path / ".hidden").touch()
    (tmp_path / "tokenizer.json").write_text("a model's")
    message = r"is no dataset, it holds tokenizer\.json; choose an empty folder, or a new one"
    with pytest.raises(UserError, match=message):
        prepare(corpus(random_texts(6)), separated, tmp_path, SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "tokenizer.json"]


def test_a_finished_folder_that_was_cut_is_told(tmp_path, corpus, random_texts, separated):
    folder = tmp_path / "data"
    prepare(corpus(random_texts(6)), separated, folder, SMALL)
    (folder / "train-000001.bin").unlink()
    with pytest.raises(UserError, match=rf"train-000001\.bin: .*; remove {folder} and prepare it again"):
        prepare(corpus(random_texts(6)), separated, folder, SMALL)


def test_a_symbol_outside_the_vocabulary_is_told(tmp_path, corpus, separated):
    with pytest.raises(
        UserError, match=r"1 character \(33\.33%\) that the tokenizer does not know: 'Q' 1x; these are too many"
    ):
        prepare(corpus([["aQ"]]), separated, tmp_path / "data", SMALL)


def test_a_part_that_fails_costs_only_itself(tmp_path, corpus, random_texts, separated, contents):
    texts = random_texts(4, n_parts=5)
    prepare(corpus(texts), separated, tmp_path / "whole", SMALL)
    for trouble, message in (
        (UserError("f.parquet is cut at row group 3"), r"f\.parquet is cut at row group 3 \(1 of 5 parts failed"),
        (OSError(errno.EIO, "Input/output error"), "cannot read 2 of corpus: Input/output error"),
    ):
        folder = tmp_path / type(trouble).__name__
        with pytest.raises(UserError, match=message):
            prepare(corpus(texts, trouble={2: trouble}), separated, folder, SMALL)
        assert not (folder / "index.json").exists()
        assert not list((folder / ".work").glob("part-000002*"))  # nothing half-written is taken for whole
        mended = corpus(texts)
        prepare(mended, separated, folder, SMALL)
        assert mended.read_parts == [2]
        assert contents(folder) == contents(tmp_path / "whole")


def test_a_bug_in_a_source_is_not_dressed_up(tmp_path, corpus, separated):
    with pytest.raises(ZeroDivisionError):
        prepare(corpus([["a"]], trouble={0: ZeroDivisionError()}), separated, tmp_path / "data", SMALL)


def test_a_finished_folder_opens_at_once(tmp_path, corpus, random_texts, separated):
    texts = random_texts(5)
    index = prepare(corpus(texts), separated, tmp_path, SMALL)
    again = corpus(texts)
    assert prepare(again, separated, tmp_path, SMALL) == index
    assert again.read_parts == []


@pytest.mark.parametrize("only", [(2, 2), (-1, 2), (0, 0)])
def test_tasks_count_from_0(tmp_path, corpus, separated, only):
    with pytest.raises(UsageError, match="does not exist"):
        prepare(corpus([["a"]]), separated, tmp_path, SMALL, only=only)


def test_reading_before_work_is_told_document_by_document(tmp_path, corpus, random_texts, separated):
    texts = random_texts(12)
    told = []
    prepare(
        corpus(texts), separated, tmp_path, ShardConfig(val_rule="documents", val_fraction=0.3), progress=told.append
    )
    read = [p.done for p in told if p.phase == "read"]
    assert read == list(range(1, sum(map(len, texts)) + 1))
    assert told[len(read)].phase == "tokenize"


def test_many_small_files_are_not_read_in_silence(tmp_path, monkeypatch):
    monkeypatch.setattr("groundup.prepare.report.Spoken.FIRST", 0.0)
    for k in range(20):
        (tmp_path / f"{k}.txt").write_text(f"text {k}")
    said = []
    open_corpus(DataConfig(source="text", path=tmp_path, cache_dir=tmp_path / "cache"), say=said.append)
    assert said[0] == f"{tmp_path}: listing the first file"
    console = Console(file=io.StringIO(), width=200)
    display = PrepareProgress(console)
    display.update(Progress(phase="read", done=1))
    assert console.file.getvalue() == ""  # what takes no second needs no word
    display._next = 0.0
    display.update(Progress(phase="read", done=1812))
    assert console.file.getvalue() == "reading 1,812 documents\n"


def test_listing_and_hashing_many_files_is_told_file_by_file(tmp_path):
    for k in range(20):
        (tmp_path / f"{k}.txt").write_text(f"text {k}")
    told = []
    source = LocalFiles(str(tmp_path), progress=listing(told.append))
    source.describe()
    source.parts()
    assert [(p.phase, p.done) for p in told] == [
        *(("list", k + 1) for k in range(20)),
        *(("hash", k + 1) for k in range(20)),
    ]
    said = []
    spoken = Spoken(said.append, "a folder")
    spoken(told[5])
    assert said == []
    spoken._next = 0.0
    spoken(told[5])
    spoken(told[6])
    assert said == ["a folder: listing 6 files"]


def test_progress_is_told(tmp_path, corpus, random_texts, separated):
    texts = random_texts(11)
    told = []
    index = prepare(corpus(texts), separated, tmp_path, SMALL, progress=told.append)
    tokenized = [p for p in told if p.phase == "tokenize"]
    assert [(p.done, p.total) for p in tokenized] == [(k + 1, len(texts)) for k in range(len(texts))]
    assert tokenized[-1].n_bytes == sum(len(t.encode()) for part in texts for t in part)
    assembled = [p for p in told if p.phase == "assemble"]
    assert [(p.done, p.total) for p in assembled] == [(k + 1, len(index.shards)) for k in range(len(index.shards))]
    assert tokenized[-1].tokens == assembled[-1].tokens == sum(info.n_tokens for info in index.shards)
