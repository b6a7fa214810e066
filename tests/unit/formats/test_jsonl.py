import gzip
import io
import json
import shutil
import subprocess
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.corpora.local_files import LocalFiles
from groundup.formats import jsonl
from groundup.formats.by_suffix import format_of
from groundup.formats.document import Document

zstandard = pytest.importorskip("zstandard")

RECORDS = [{"id": k, "text": f"text {k} äöü 漢字 " * (k % 7)} for k in range(100)]
LINES = b"".join(json.dumps(record, ensure_ascii=k % 2 == 0).encode() + b"\n" for k, record in enumerate(RECORDS))
TEXTS = [record["text"] for record in RECORDS]


def read(path, skipped=None, column="text"):
    source = LocalFiles(str(path), ReadConfig(text_column=column))
    skipped = {} if skipped is None else skipped
    return [document.text for part in source.parts() for document in source.read(part, skipped)]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".jsonl", bytes),
        (".jsonl.gz", gzip.compress),
        (".jsonl.gz", lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:])),
        (".jsonl.zst", zstandard.compress),
        (".jsonl.zst", lambda data: zstandard.compress(data[:1000]) + zstandard.compress(data[1000:])),
        (".JSON.GZ", gzip.compress),
    ],
)
def test_all_forms_hold_the_same_texts(tmp_path, suffix, pack):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pack(LINES))
    assert read(path) == TEXTS


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(max_size=30), max_size=20),
    st.lists(st.integers(0, 600), max_size=6),
    st.booleans(),
    st.integers(1, 50),
)
def test_every_line_is_read_once_however_the_file_is_cut(texts, cuts, ended, chunk):
    data = b"\n".join(json.dumps({"text": text}).encode() for text in texts) + (b"\n" if ended and texts else b"")
    bounds = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    got = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "CHUNK", chunk)
        for span in pairwise(bounds):
            lines = jsonl.read_plain(io.BytesIO(data), "a.jsonl", span, ReadConfig(), {})
            got += [document.text for document in lines]
    assert got == texts


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.integers(1, 20), st.integers(1, 40))
def test_lines_and_offsets_are_those_of_split(data, chunk, longest):
    chunks = [data[at : at + chunk] for at in range(0, len(data), chunk)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUNDUP_MAX_LINE_BYTES", str(longest))
        got = list(jsonl.split_lines(chunks, 7))
    expected, at = [], 7
    for line in data.split(b"\n"):
        expected.append((at, line if len(line) <= longest else None))
        at += len(line) + 1
    if not data or data.endswith(b"\n"):
        expected.pop()
    assert got == expected


def test_bad_lines_are_counted_by_reason_and_file(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "first"}\r\n'
        b'{"text": "cut\n'
        b'{"text": "latin \xe4"}\n'
        b'[1]\n\n  \n"text"\nnull\n'
        b'{"id": 1}\n{"text": null}\n{"text": 3}\n{"text": ["a"]}\n' + b'{"text": ' + b"[" * 200_000 + b"\n"
        b'{"text": ""}\n{"text": "last"}'
    )
    skipped = {}
    assert read(path, skipped) == ["first", "", "last"]
    assert skipped == {
        "line that is not JSON in bad.jsonl": 2,
        "line that is not UTF-8 in bad.jsonl": 1,
        "line that is not a JSON object in bad.jsonl": 3,
        "record without text in bad.jsonl": 1,
        "text that is null in bad.jsonl": 1,
        "text that is not a string in bad.jsonl": 2,
    }


@pytest.mark.parametrize(("suffix", "pack"), [(".jsonl", bytes), (".jsonl.gz", gzip.compress), (".json", bytes)])
def test_lines_of_strings_are_texts_where_the_first_is_one(tmp_path, monkeypatch, suffix, pack):
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 10)
    path, skipped = tmp_path / f"a{suffix}", {}
    path.write_bytes(pack(b'\xef\xbb\xbf"hello"\n{"text": "b"}\n3\n"world"\n"last"'))
    assert read(path, skipped) == ["hello", "b", "world", "last"]
    assert skipped == {f"line that is not a JSON object in a{suffix}": 1}


@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-16", "UTF-16"), ("utf-16-le", "UTF-16LE"), ("cp1252", "Windows-1252")]
)
@pytest.mark.parametrize(("suffix", "pack"), [(".jsonl", bytes), (".jsonl.gz", gzip.compress)])
def test_lines_in_another_encoding_are_refused_by_its_name(tmp_path, suffix, pack, encoding, said):
    path = tmp_path / f"a{suffix}"
    lines = "".join(json.dumps({"text": f"ein Café {k}"}, ensure_ascii=False) + "\n" for k in range(9))
    path.write_bytes(pack(lines.encode(encoding)))
    with pytest.raises(UserError, match=rf"a{suffix} .*{said}.*; convert it first: iconv"):
        read(path)


def test_lines_of_no_json_at_all_are_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("just some words\nand more\n")
    with pytest.raises(UserError, match=r"a.jsonl holds no line of JSON; its first begins with 'just some words'"):
        read(tmp_path / "a.jsonl")


def test_a_wrong_column_is_an_error_that_names_the_keys(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "content": "x"}\n' * 3)
    with pytest.raises(UserError, match="no record has the key 'text', its keys are content, id; choose with --text"):
        read(path)
    assert read(path, column="content") == ["x"] * 3


@pytest.mark.parametrize(("suffix", "pack"), [(".jsonl.gz", gzip.compress), (".jsonl.zst", zstandard.compress)])
def test_a_cut_or_damaged_file_is_named_with_the_line(tmp_path, suffix, pack):
    path = tmp_path / f"a{suffix}"
    packed = pack(LINES)
    for cut in (len(packed) - 1, len(packed) // 2, 3):
        path.write_bytes(packed[:cut])
        with pytest.raises(UserError, match=rf"a{suffix} is (cut|damaged).*after [\d,]+ bytes") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(packed[:100] + bytes(200) + packed[300:])
    with pytest.raises(UserError, match=rf"a{suffix} is damaged after [\d,]+ bytes"):
        read(path)
    path.write_bytes(b"not packed at all" * 10)
    with pytest.raises(UserError, match=rf"a{suffix} is damaged after 0 bytes"):
        read(path)
    path.write_bytes(pack(LINES) + b"tail that is neither")
    with pytest.raises(UserError, match=rf"a{suffix} is damaged after [\d,]+ bytes"):
        read(path)


def test_a_file_much_larger_than_a_part_is_many_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    assert len(LocalFiles(str(path)).parts()) == -(-len(LINES) // 1000)
    assert read(path) == TEXTS


def test_a_line_without_end_takes_no_memory(monkeypatch):
    """30 MB in one line, out of a file of 30 kB: as a bomb would do it."""
    monkeypatch.setenv("GROUNDUP_MAX_LINE_BYTES", "1000000")
    bomb = io.BytesIO(gzip.compress(b'{"text": "' + b"x" * 30_000_000 + b'"}\n{"text": "good"}\n', 1))
    skipped = {}
    tracemalloc.start()
    assert list(format_of("a.jsonl.gz").read(bomb, "a.jsonl.gz", (0, 1), ReadConfig(), skipped)) == [Document("good")]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20
    assert skipped == {"line longer than 1,000,000 bytes (GROUNDUP_MAX_LINE_BYTES) in a.jsonl.gz": 1}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_records_in_an_object_are_taken_out_as_the_message_says(tmp_path, monkeypatch, suffix, indent):
    jq = shutil.which("jq") or pytest.skip("jq is not installed")
    path = tmp_path / f"a file{suffix}"
    path.write_text(json.dumps({"version": 1, "data": [{"text": "a"}, {"text": "b"}]}, indent=indent))
    monkeypatch.chdir(tmp_path)
    for step in range(2 if indent else 1):
        with pytest.raises(UserError, match=r"stand under the key 'data'|objects span lines") as error:
            read(path)
        advice = str(error.value).partition(": jq ")[2]
        subprocess.run(f"{jq} {advice}".replace("NEW", f"{step}"), shell=True, check=True)
        path = tmp_path / f"{step}.jsonl"
    assert read(path) == ["a", "b"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(alphabet='a"\\ {}[],\n🧬', max_size=30), max_size=40),
    st.sampled_from([None, 1, 7]),
    st.integers(1, 40),
    st.sampled_from(["", "\n" * 50]),
)
def test_an_array_is_read_however_it_is_cut(texts, indent, chunk, blank):
    records = [json.dumps({"text": text}, indent=indent) for text in texts]
    data = f"{blank}[{blank}{(blank + ',' + blank).join(records)}{blank}]{blank}".encode()
    pieces = [data[k : k + chunk] for k in range(0, len(data), chunk)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "CHUNK", chunk)
        got = [value["text"] for value in jsonl._items(jsonl.text_chunks(pieces, "a.json"), "a.json")]
    assert got == texts


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.text(alphabet='a"\\ []{},\n🧬', max_size=9), max_size=4), min_size=1, max_size=5),
    st.sampled_from(["", "\n", " \r\n\n"]),
    st.integers(1, 40),
)
def test_all_arrays_of_a_file_are_read(arrays, between, chunk):
    data = (between.join(map(json.dumps, arrays)) + between).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "CHUNK", chunk)
        pieces = (data[k : k + chunk] for k in range(0, len(data), chunk))
        got = [document.text for document in jsonl.read_json(pieces, "a.json", ReadConfig(), {})]
    assert got == [text for array in arrays for text in array]


@pytest.mark.parametrize("rest", ["]", "garbage", '{"text": "b"}', ', ["b"]'])
def test_what_is_no_array_is_refused_behind_one(tmp_path, rest):
    (tmp_path / "a.json").write_text(f'[{{"text": "a"}}]\n{rest}')
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.json")
    assert str(error.value) == f"{tmp_path}/a.json: behind the end of its array stands {rest!r}"


def test_the_rest_of_an_array_is_not_copied_for_each_item(monkeypatch):
    copied = 0

    def count(method):
        def counted(read):
            nonlocal copied
            left, at = read.left, read.at
            got = method(read)
            copied += left if read.at != at else 0  # what is left now begins at 0
            return got

        return counted

    for name in ("more", "cut"):
        monkeypatch.setattr(jsonl._Read, name, count(getattr(jsonl._Read, name)))
    data = json.dumps([{"text": "short"}] * 100_000)
    chunks = (data[k : k + 1000] for k in range(0, len(data), 1000))
    assert sum(1 for _ in jsonl._items(chunks, "a.json")) == 100_000
    assert 0 < copied <= 2 * len(data)
