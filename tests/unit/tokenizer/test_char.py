import shlex
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.config.errors import UserError
from groundup.tokenizer import char
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.char import CharTokenizer


def test_ids_are_places_in_the_alphabet():
    tokenizer = CharTokenizer.from_text(["hello", "é!"])
    assert tokenizer.symbols == ["!", "e", "h", "l", "o", "é"]
    assert tokenizer.encode("hé") == [2, 5]
    assert tokenizer.decode([2, 5]) == "hé"
    assert tokenizer.decode_bytes([5]) == "é".encode()
    assert tokenizer.eot_id is None
    assert isinstance(tokenizer, Tokenizer)


@given(text=st.text(min_size=1))
def test_every_text_comes_back(text):
    tokenizer = CharTokenizer.from_text([text])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode_array(text).dtype == np.uint32
    assert tokenizer.vocab_size == len(set(text))


@pytest.mark.parametrize("text", ["abz", "ab\U0010ffff", "ab\ud800"])
def test_an_unknown_character_is_named(text):
    with pytest.raises(UserError, match="at position 2"):
        CharTokenizer("abc").encode(text)


@pytest.mark.parametrize("symbols", ["", "aa", ["ab"], [""], ["\ud800"]])
def test_what_is_no_alphabet_is_refused(symbols):
    with pytest.raises(UserError):
        CharTokenizer(symbols)


@pytest.mark.parametrize("wrong", [3, -1])
def test_an_unknown_id_is_refused(wrong):
    with pytest.raises(UserError, match="outside the vocabulary of 3"):
        CharTokenizer("abc").decode([wrong])


def test_the_fingerprint_depends_on_symbols_and_their_order():
    assert len({CharTokenizer(symbols).fingerprint for symbols in ("abc", "acb", "ab", "abcd")}) == 4


def test_long_text_is_encoded_in_slices(monkeypatch):
    whole = CharTokenizer("abc").encode("abccba" * 5)
    monkeypatch.setattr(char, "SLICE", 7)
    assert CharTokenizer("abc").encode("abccba" * 5) == whole
    with pytest.raises(UserError, match="'x' at position 15 "):
        CharTokenizer("abc").encode("a" * 15 + "x")
    assert CharTokenizer("abc").encode("") == []


@pytest.mark.parametrize(
    ("alphabet", "text", "known", "form"),
    [
        ("caf\u00e9", "cafe\u0301", "\u00e9", "NFC"),
        ("cafe\u0301", "caf\u00e9", "e\u0301", "NFD"),
        ("fish", "\ufb01sh", "fi", "NFKC"),
        ("a b", "a\u00a0b", " ", "NFKC"),
        ("AB", "A\uff22", "B", "NFKC"),
        ("e\u0301", "\uff45\u0301", "e\u0301", "NFKD"),
    ],
)
def test_another_form_of_a_known_character_is_told_and_the_advice_works(alphabet, text, known, form):
    tokenizer = CharTokenizer(sorted(set(alphabet)))
    with pytest.raises(UserError, match=f"it knows {known!r} as .*{form}") as caught:
        tokenizer.encode(text)
    command = str(caught.value).partition("for example with ")[2]
    words = [sys.executable, *shlex.split(command)[1:]]
    shown = subprocess.run(words, input=text.encode(), capture_output=True, check=True).stdout
    assert tokenizer.decode(tokenizer.encode(shown.decode())) == unicodedata.normalize(form, text)
