import io
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.corpora.local_files import LocalFiles
from groundup.formats import parquet

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TEXTS = [f"text {k} äöü 漢字 " * (k % 7) for k in range(100)]


def write(path, texts=TEXTS, **options):
    pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path, **options)


def read(path, skipped=None, column="text"):
    source = LocalFiles(str(path), ReadConfig(text_column=column))
    skipped = {} if skipped is None else skipped
    return [document.text for part in source.parts() for document in source.read(part, skipped)]


@pytest.mark.parametrize("kind", ["string", "large_string", "dictionary"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_texts_come_in_order(tmp_path, kind, compression):
    kinds = {"string": pa.string(), "large_string": pa.large_string(), "dictionary": None}
    column = pa.array(TEXTS, kinds[kind]) if kinds[kind] else pa.array(TEXTS).dictionary_encode()
    table = pa.table({"nested": [{"text": "not this"}] * len(TEXTS), "text": column})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=13, compression=compression)
    assert read(tmp_path / "a.parquet") == TEXTS


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=30), st.integers(1, 10), st.integers(1, 200))
def test_every_row_is_read_once_whatever_the_groups(texts, group, part_bytes):
    file = io.BytesIO()
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), file, row_group_size=group)
    skipped = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("groundup.formats.spans.PART_BYTES", part_bytes)
        spans = parquet.spans(file, "a.parquet", ReadConfig())
    got = [t for s in spans for t in parquet.read(file, "a.parquet", (s.start, s.stop), ReadConfig(), skipped)]
    got = [document.text for document in got]
    assert got == [text for text in texts if text is not None]
    assert sum(skipped.values()) == texts.count(None)


def test_nulls_and_bad_utf8_are_counted(tmp_path):
    binary = pa.array([b"good", None, b"latin \xe4", b"too"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 4, binary.buffers(), null_count=1)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    skipped = {}
    assert read(tmp_path / "a.parquet", skipped) == ["good", "too"]
    assert skipped == {"text that is null in a.parquet": 1, "text that is not UTF-8 in a.parquet": 1}


def test_row_groups_are_gathered_and_kept_apart(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", row_group_size=10)
    assert LocalFiles(str(tmp_path)).parts() == [((str(tmp_path / "a.parquet"), 0, 10),)]
    monkeypatch.setattr("groundup.formats.spans.PART_BYTES", 1)
    assert LocalFiles(str(tmp_path)).parts() == [((str(tmp_path / "a.parquet"), k, k + 1),) for k in range(10)]


@pytest.mark.parametrize(
    ("column", "message"),
    [("txt", "has no column 'txt', its columns are id, text; choose with --text-column"),
     ("id", "column 'id' is of type int64, not of text")],
)  # fmt: skip
def test_a_wrong_column_is_named(tmp_path, column, message):
    write(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.parquet", column=column)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([["a", "b"]], r"column 'text' is of type list<element: string>, not of text; choose with --text-column"),
        ([{"a": "b"}], r"column 'text' is of type struct<a: string>, not of text; choose with --text-column"),
    ],
)
def test_a_column_of_lists_is_named(tmp_path, values, message):
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.parquet")


def test_two_columns_of_one_name_are_refused(tmp_path):
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,text\na,b\n")
    for name in ("a.parquet", "a.csv"):
        with pytest.raises(UserError, match=f"{name} has 2 columns 'text'; give each a name of its own"):
            read(tmp_path / name)


@pytest.mark.parametrize("task", [parquet.row_group_sizes, parquet.row_group_texts])
def test_an_extra_that_is_absent_is_named(tmp_path, monkeypatch, task):
    write(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    span = (0, 1) if task is parquet.row_group_texts else ()
    with (tmp_path / "a.parquet").open("rb") as file, pytest.raises(UserError, match=r"pip install 'groundup\[data\]'"):
        next(task(file, "a.parquet", *span, "text", "--"))


def test_a_cut_file_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    write(path)
    whole = path.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match=r"a\.parquet is (not a whole parquet file|empty)") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_a_footer_that_ends_pyarrow_is_named_and_the_other_files_are_read(tmp_path):
    """One bit: a column with nulls is said to have none, and pyarrow 26 aborts where it counts them."""
    for name in ("evil", "sound"):
        pq.write_table(pa.table({"text": ["b", None]}), tmp_path / f"{name}.parquet", store_schema=False)
    evil = tmp_path / "evil.parquet"
    optional, required = b"\x25\x02\x18\x04text", b"\x25\x00\x18\x04text"  # Thrift: field 3 is 1 or 0, then the name
    assert evil.read_bytes().count(optional) == 1
    evil.write_bytes(evil.read_bytes().replace(optional, required))
    code = f"import pyarrow.parquet as pq; pq.read_metadata({str(evil)!r}).row_group(0).column(0)"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert alone.returncode == -signal.SIGABRT or not pa.__version__.startswith("26.")
    if alone.returncode < 0:
        with evil.open("rb") as file, pytest.raises(UserError, match="x ended the process that read it by SIGABRT"):
            parquet.spans(file, "x", ReadConfig())
    source, texts = LocalFiles(str(tmp_path)), []
    (part,) = source.parts()
    with pytest.raises(UserError, match=r"evil\.parquet is damaged in row group 0: Definition level") as caught:
        texts.extend(document.text for document in source.read(part, {}))
    assert "\n" not in str(caught.value)
    assert texts == ["b"]
    skipped = {}
    patient = LocalFiles(str(tmp_path), ReadConfig(bad_files="skip"))
    assert [document.text for document in patient.read(part, skipped)] == ["b"]
    assert len(skipped) == 2  # the null of the sound one, too


def test_damage_is_named_with_its_row_group(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, row_group_size=50, use_dictionary=False, compression="zstd", write_page_checksum=True)
    column = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    at = column.data_page_offset + column.total_compressed_size // 2
    data[at] ^= 1
    path.write_bytes(data)
    source = LocalFiles(str(path))
    (part,) = source.parts()
    got = []
    with pytest.raises(UserError, match=r"a\.parquet is damaged in row group 1: ") as caught:
        got.extend(document.text for document in source.read(part, {}))
    assert "\n" not in str(caught.value)


def test_a_row_group_of_any_size_is_read_in_little_memory(tmp_path):
    """130 MB of text in one row group: some rows are in memory, not the group."""
    path = tmp_path / "big.parquet"
    line = "all work and no play makes jack a dull boy " * 25
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="zstd") as writer:
        writer.write_table(pa.table({"text": pa.array([f"{k} {line}" for k in range(120_000)])}, schema=schema),
                           row_group_size=120_000)  # fmt: skip
    assert pq.read_metadata(path).num_row_groups == 1
    code = (
        "import resource, sys\n"
        "from groundup.formats.parquet import row_group_sizes, row_group_texts\n"
        "file = open(sys.argv[1], 'rb')\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "list(row_group_sizes(file, 'big', 'text', '--')); before = peak()\n"
        "n = sum(len(t) for texts, _ in row_group_texts(file, 'big', 0, 1, 'text', '--') for t in texts)\n"
        "print(n, (peak() - before) >> 10)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    n, megabytes = map(int, done.stdout.split())
    assert n > 120_000_000
    assert megabytes < 80


def again_and_again(path, rows):
    """A few hundred bytes: one text of 4 MB, and how often it stands there."""
    text = "x" * (4 << 20)
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))
    pq.write_table(pa.table({"text": column}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2000
    return text


def test_a_text_that_a_few_bytes_stand_for_again_and_again_comes_some_at_a_time(tmp_path):
    text = again_and_again(tmp_path / "a.parquet", 20)
    with (tmp_path / "a.parquet").open("rb") as file:
        sizes = [len(texts) for texts, _ in parquet.row_group_texts(file, "a.parquet", 0, 1, "text", "--")]
    assert sum(sizes) == 20
    assert max(sizes) * len(text) <= 2 * parquet.BATCH_BYTES


@pytest.mark.fault(
    "B8",
    "a parquet file of 700 bytes that unpacks to more than its process may take",
    "refused by name, with the limit; the next file is read",
)
@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
def test_what_unpacks_to_more_than_the_limit_is_refused(tmp_path, monkeypatch):
    again_and_again(tmp_path / "a.parquet", 400)
    write(tmp_path / "good.parquet")
    monkeypatch.setattr("groundup.files.apart._idle", lambda pid: [])  # a process of now, with the limit of now
    monkeypatch.setenv("GROUNDUP_MAX_APART_BYTES", str(1 << 30))
    with pytest.raises(UserError, match=r"a.parquet takes more than 1,073,741,824 bytes of memory; .*_APART_BYTES"):
        read(tmp_path / "a.parquet")
    assert read(tmp_path / "good.parquet") == TEXTS
