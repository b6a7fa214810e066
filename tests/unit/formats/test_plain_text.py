import io

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.formats import plain_text
from groundup.formats.document import Document

PLAIN = ReadConfig()
PIECES = st.sampled_from(["a", "word ", "\n", "ä", "漢", "🧬", "\n\n", "long line " * 5])


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=60), st.integers(1, 60), st.integers(1, 30))
def test_documents_joined_are_the_file_however_it_is_cut(texts, longest, line):
    text = "".join(texts)
    file = io.BytesIO(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_text, "DOCUMENT_BYTES", longest)
        patch.setattr(plain_text, "LINE", line + 8)
        spans = plain_text.spans(len(file.getvalue()))
        got = [d for s in spans for d in plain_text.read(file, "a.txt", (s.start, s.stop), PLAIN, {})]
    assert "".join(document.text for document in got) == text
    assert [document.ends for document in got] == [False] * (len(got) - 1) + [True]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.lists(PIECES, min_size=1, max_size=12).map("".join), min_size=1, max_size=6),
    st.integers(30, 90),
    st.integers(1, 10),
    st.integers(1, 20),
    st.sampled_from(["", "|", "\n--\n", "\n\n"]),
)
def test_pieces_of_a_document_know_how_it_begins(texts, longest, line, chunk, separator):
    """Read in spans or as a stream; and both find the same documents."""
    config = ReadConfig(separator=separator)
    data = separator.join(texts).encode()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("DOCUMENT_BYTES", longest), ("LINE", line + 8), ("BEGINNING", 10)):
            patch.setattr(plain_text, name, value)
        file, spans = io.BytesIO(data), plain_text.spans(len(data))
        in_spans = [d for s in spans for d in plain_text.read(file, "a.txt", (s.start, s.stop), config, {})]
        pieces = [data[k : k + chunk] for k in range(0, len(data), chunk)]
        streamed = list(plain_text.read_stream(pieces, "a.txt", config, {}))
    whole = [text.strip("\n") for text in (data.decode().split(separator) if separator else [data.decode()])]
    for got in (in_spans, streamed):
        joined, known = [""], [set()]
        for document in got:
            joined[-1] += document.text
            known[-1].add(document.beginning)
            if document.ends:
                joined.append("")
                known.append(set())
        assert [text.strip("\n") for text in joined if text.strip()] == [text for text in whole if text.strip()]
        assert all(len(names) <= 1 for names in known)
        if not separator:
            assert {name for names in known for name in names} <= {"", data[:10].decode(errors="ignore")}


def documents(pieces):
    """What is read, with the pieces of large documents put together."""
    whole = [""]
    for piece in pieces:
        whole[-1] += piece.text
        if piece.ends:
            whole.append("")
    return [text.strip("\n") for text in whole if text.strip()]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "word ", "ä", "漢", "--", "|", ""]), st.sampled_from(["", "\n", "\r\n", "\r"])),
        min_size=1,
        max_size=60,
    ),
    st.integers(10, 90),
    st.integers(1, 10),
    st.integers(1, 20),
    st.sampled_from(["", "|", "\n", "\n--\n", "\n\n"]),
)
def test_documents_are_the_same_however_lines_end_and_the_file_is_cut(lines, longest, line, chunk, separator):
    config = ReadConfig(separator=separator)
    for end in ("\n", "\r\n", "\r", None):
        data = "".join(text + (end if end and own else own) for text, own in lines).encode()
        text = data.decode().replace("\r\n", "\n").replace("\r", "\n")
        assume("\n--\n--\n" not in text)  # of two separators that share a line, a cut may fall behind the second
        with pytest.MonkeyPatch.context() as patch:
            for name, value in (("DOCUMENT_BYTES", longest), ("LINE", line + 8)):
                patch.setattr(plain_text, name, value)
            file, spans = io.BytesIO(data), plain_text.spans(len(data))
            in_spans = [d for s in spans for d in plain_text.read(file, "a.txt", (s.start, s.stop), config, {})]
            pieces = [data[k : k + chunk] for k in range(0, len(data), chunk)]
            streamed = list(plain_text.read_stream(pieces, "a.txt", config, {}))
        parts = text.split(separator) if separator else [text]
        expected = [part.strip("\n") for part in parts if part.strip()]
        assert documents(in_spans) == documents(streamed) == expected


def test_cuts_fall_at_ends_of_lines(monkeypatch):
    monkeypatch.setattr(plain_text, "DOCUMENT_BYTES", 100)
    file = io.BytesIO(b"".join(b"line %d\n" % k for k in range(100)))
    spans = plain_text.spans(len(file.getvalue()))
    got = [next(plain_text.read(file, "a.txt", (s.start, s.stop), PLAIN, {})).text for s in spans]
    assert len(got) == 8
    assert all(document.endswith("\n") and document.startswith("line ") for document in got)


def test_a_byte_order_mark_and_line_ends_are_put_right():
    file = io.BytesIO(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert list(plain_text.read(file, "a.txt", (0, 18), PLAIN, {})) == [Document("one\ntwo\nthree\n")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"\xe4", r"a.txt is not UTF-8 \(byte 151 is 0xe4\); as Windows-1252 it reads '.* xä bad"),
        (b"\0", "a.txt is not text: byte 151 is zero"),
    ],
)
def test_bad_bytes_are_named_by_their_place_in_the_file(monkeypatch, bad, message):
    monkeypatch.setattr(plain_text, "DOCUMENT_BYTES", 100)
    file = io.BytesIO(b"good line\n" * 15 + b"x" + bad + b" bad line\n" * 5)
    second = plain_text.spans(len(file.getvalue()))[1]
    with pytest.raises(UserError, match=message):
        list(plain_text.read(file, "a.txt", (second.start, second.stop), PLAIN, {}))
