import io

import pytest
from hypothesis import given, settings
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
