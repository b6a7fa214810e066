import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.config.errors import UsageError
from groundup.generation.stopping import StopStrings

# Two letters: overlaps of every kind in nearly every example.
texts = st.text("ab", max_size=20)
stop_lists = st.lists(st.text("ab", min_size=1, max_size=5), max_size=4)


def rule(text, stops):
    """The rule, written out on the whole text."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


def pieces_of(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(edges)]


@given(texts, stop_lists, st.lists(st.integers(0, 20), max_size=20))
def test_equals_the_rule_however_the_text_is_cut(text, stops, cuts):
    stopping = StopStrings(stops)
    shown = "".join(stopping.push(piece) for piece in pieces_of(text, cuts))
    expected, stopped = rule(text, stops)
    assert stopping.stopped == stopped
    assert shown + stopping.finish() == expected


@given(texts, texts, stop_lists)
def test_what_is_shown_stays_right_whatever_comes(text, more, stops):
    """No beginning of a stop string is shown: it would have to be taken back."""
    shown = StopStrings(stops).push(text)
    assert rule(text + more, stops)[0].startswith(shown)


@given(texts, stop_lists)
def test_no_more_is_held_back_than_needed(text, stops):
    stopping = StopStrings(stops)
    stopping.push(text)
    held = stopping.finish()
    assert not held or any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize(
    ("stops", "text", "shown"),
    [
        (["aab"], "aaab", "a"),  # litgpt starts over at the second a and misses it
        (["\n\n"], "one\n\ntwo", "one"),
        (["ROMEO:", "\n"], "ROMEO\n", "ROMEO"),
        (["abc", "b"], "abc", "a"),  # b is complete first
        (["bc", "abc"], "xabc", "x"),  # both are complete at c: the longer
        (["é"], "café", "caf"),
        (["\r\n"], "one\ntwo", "one"),  # as prompts are read
        (["\r\n"], "one\r\ntwo", "one"),  # of a model that writes it
        (["User:\r\n"], "User: \nUser:\n", "User: \n"),
    ],
)
def test_examples(stops, text, shown):
    for pieces in ([text], list(text)):
        stopping = StopStrings(stops)
        assert "".join(map(stopping.push, pieces)) + stopping.finish() == shown
        assert stopping.stopped


def test_after_the_stop_nothing_is_shown():
    stopping = StopStrings(["b"])
    assert [stopping.push("ab"), stopping.push("more"), stopping.finish()] == ["a", "", ""]


def test_empty_stop_string():
    with pytest.raises(UsageError, match="at least one character"):
        StopStrings(["a", ""])
