from hypothesis import given
from hypothesis import strategies as st

from groundup.tokenizer.bpe import ByteBPE
from groundup.tokenizer.streaming import Utf8Stream

BYTES = ByteBPE([(0xF0, 0x9F), (256, 0x91)])


@given(ids=st.lists(st.integers(0, 257), max_size=40))
def test_pieces_give_what_the_whole_gives(ids):
    stream = Utf8Stream()
    pieces = [stream.push(BYTES.decode_bytes([i])) for i in ids]
    assert "".join(pieces) + stream.finish() == BYTES.decode(ids)


@given(text=st.text())
def test_a_character_comes_when_its_last_byte_does(text):
    stream = Utf8Stream()
    shown = ""
    for i, byte in enumerate(text.encode()):
        shown += stream.push(bytes([byte]))
        assert shown == text.encode()[: i + 1].decode(errors="ignore")
    assert shown == text
    assert stream.finish() == ""


def test_an_unfinished_character_ends_as_a_replacement():
    stream = Utf8Stream()
    assert stream.push("é".encode()[:1]) == ""
    assert stream.finish() == "\ufffd"
