"""Tables: what is refused before it fills the memory."""

import gzip
import io
import tracemalloc

import pytest

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.formats.by_suffix import format_of


@pytest.mark.fault(
    "B8",
    "a packed table of 20 kB whose one line, or one field, is 20 MB",
    "refused as soon as it is longer than the limit, which the message names",
)
@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (b"text\n" + b"x" * 20_000_000, "a line"),
        (b'text\n"' + (b"x" * 999 + b"\n") * 20_000, "a field that ends"),
    ],
    ids=["line", "field"],
)
def test_a_line_or_field_without_end_takes_no_memory(monkeypatch, rows, what):
    monkeypatch.setenv("GROUNDUP_MAX_LINE_BYTES", "1000000")
    packed = io.BytesIO(gzip.compress(rows, 1))
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"a.csv.gz: {what}.* takes more than 1,000,000 .*MAX_LINE_BYTES"):
        list(format_of("a.csv.gz").read(packed, "a.csv.gz", (0, 1), ReadConfig(), {}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 << 20


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_columns_are_told_by_whatever_stands_between_them(mark):
    rows = f'id{mark}text\n1{mark}"a{mark} b"\n2{mark}c\n'.encode()
    read = format_of("a.csv").read(io.BytesIO(rows), "a.csv", (0, 1), ReadConfig(), {})
    assert [document.text for document in read] == [f"a{mark} b", "c"]


def texts_of(rows, name="a.csv"):
    data = io.BytesIO(rows.encode())
    return [document.text for document in format_of(name).read(data, name, (0, 1), ReadConfig(), {})]


@pytest.mark.parametrize("bad", ['3,"cut in the middle', '3,"cut in the middle\n4,"next"\n', '3,"not" closed\n4,c\n'])
def test_a_quote_that_is_not_closed_does_not_make_letters_of_all_others(bad):
    rows = f'id,text\n1,plain words\n2,"she said ""hi"" to him"\n{bad}'
    with pytest.raises(
        UserError, match=r"^a.csv is no sound table at line \d: .*; there or above, a quote is not closed"
    ):
        texts_of(rows)


def test_quotes_are_letters_where_no_field_is_quoted():
    assert texts_of('id,text\n1,"Hi" she said\n2,"Go\n3,on"\n') == ['"Hi" she said', '"Go', 'on"']
    assert texts_of('id\ttext\n1\t"Hi"\n2\t"Go\n', "a.tsv") == ['"Hi"', '"Go']
