"""Text that streams is the text that does not, whatever its bytes and stop strings."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.generation.requests import Event
from groundup.serving.texts import ChoiceText, TokenNames
from groundup.tokenizer.streaming import Utf8Stream


class Bytes:
    """A token per byte, and 256 for the end of a document."""

    eot_id = 256

    def decode_bytes(self, ids):
        return bytes(ids)


def told(data, stop, finish, cuts=None, n_top=0):
    """The pieces of a text whose tokens are the bytes: each alone, or as many as `cuts` have it, over and over."""
    tokenizer = Bytes()
    choice = ChoiceText(tokenizer, TokenNames(tokenizer, as_ids=False), 7, stop, n_top)
    last, pieces, sizes = len(data) - 1, [], itertools.cycle(cuts or [1])
    events = [
        Event(request=0, choice=0, token=byte, finish=finish if i == last else None) for i, byte in enumerate(data)
    ]
    while events and not choice.done:
        size = next(sizes)
        pieces.append(choice.push(events[:size]))
        events = events[size:]
    return pieces, choice


texts = st.lists(
    st.sampled_from("ab é€😀\n").map(str.encode) | st.binary(min_size=1, max_size=3), min_size=1, max_size=8
)


@pytest.mark.fault(
    "F7",
    "tokens that cut characters and stop strings anywhere, and bytes that are no text",
    "the streamed text is the whole one",
)
@given(texts.map(b"".join), st.lists(st.text("ab é€", min_size=1, max_size=3), max_size=3))
def test_pieces_are_the_text_cut_at_the_first_stop(data, stop):
    pieces, choice = told(data, stop, "length")
    decoder = Utf8Stream()
    whole, expected, reason = "", None, "length"
    for step in [*(decoder.push(bytes([byte])) for byte in data), decoder.finish()]:
        for character in step:
            whole += character
            ends = [s for s in stop if whole.endswith(s)]
            if ends and expected is None:
                expected, reason = whole[: -max(map(len, ends))], "stop"
    assert "".join(piece.text for piece in pieces) == (whole if expected is None else expected)
    assert pieces[-1].finish == reason
    assert choice.done
    assert not [piece.finish for piece in pieces[:-1] if piece.finish]


@given(texts.map(b"".join), st.lists(st.text("ab é€", min_size=1, max_size=3), max_size=3))
def test_every_token_of_the_text_is_told_once_in_order_with_the_text_it_begins(data, stop):
    pieces, _ = told(data, stop, "length")
    length = 7
    offsets = []
    for piece in pieces:
        length += len(piece.text)
        offsets += [token.offset for token in piece.tokens]
        assert all(token.offset <= length for token in piece.tokens)
    assert offsets == sorted(offsets)
    if pieces[-1].finish == "length":
        assert len(offsets) == len(data)
    else:
        assert all(offset < length for offset in offsets)


@given(st.lists(st.sampled_from(["a", "é", "€", "😀"]).map(str.encode) | st.binary(min_size=1, max_size=4), min_size=1))
def test_the_offset_of_a_token_is_that_of_the_character_that_its_first_byte_is_part_of(parts):
    class Parts:
        eot_id = None

        def decode_bytes(self, ids):
            return b"".join(parts[token] for token in ids)

    events = [Event(request=0, choice=0, token=token) for token in range(len(parts))]
    choice = ChoiceText(Parts(), TokenNames(Parts(), as_ids=False), 0, (), 0)
    offsets = [token.offset for token in choice.push([*events, Event(request=0, choice=0, finish="length")]).tokens]
    ends = [len(b"".join(parts[:i])) + 1 for i in range(len(parts))]  # behind the first byte of each
    assert offsets == [len(b"".join(parts)[:end].decode(errors="replace")) - 1 for end in ends]


@given(
    texts.map(b"".join),
    st.lists(st.text("ab é€", min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.sampled_from(["length", "stop"]),
)
def test_tokens_that_come_together_are_one_piece_of_the_same(data, stop, cuts, finish):
    (alone, first), (together, second) = told(data, stop, finish), told(data, stop, finish, cuts)
    assert "".join(piece.text for piece in together) == "".join(piece.text for piece in alone)
    assert [token for piece in together for token in piece.tokens] == [t for piece in alone for t in piece.tokens]
    assert together[-1].finish == alone[-1].finish
    assert second.n_tokens == first.n_tokens
    assert len(together) <= len(alone)
    untold, third = told(data, stop, finish, cuts, n_top=None)
    assert [(piece.text, piece.tokens, piece.finish) for piece in untold] == [(p.text, [], p.finish) for p in together]
    assert third.n_tokens == first.n_tokens


def test_the_end_of_a_document_is_no_text():
    tokenizer = Bytes()
    events = [Event(request=0, choice=0, token=97), Event(request=0, choice=0, token=256, finish="stop")]
    for n_top, stop in ((0, ("z",)), (None, ("z",)), (None, ())):
        choice = ChoiceText(tokenizer, TokenNames(tokenizer, as_ids=False), 0, stop, n_top)
        choice.push(events[:1])
        piece = choice.push(events[1:])
        assert (piece.text, piece.tokens, piece.finish, choice.n_tokens) == ("", [], "stop", 2)
        piece = ChoiceText(tokenizer, TokenNames(tokenizer, as_ids=False), 0, stop, n_top).push(events)
        assert (piece.text, piece.finish) == ("a", "stop")


def test_tokens_that_are_no_text_are_written_as_bytes():
    names = TokenNames(Bytes(), as_ids=False)
    assert [names(97), names(0xE2)] == ["a", "bytes:\\xe2"]
    assert TokenNames(Bytes(), as_ids=True)(97) == "token_id:97"
