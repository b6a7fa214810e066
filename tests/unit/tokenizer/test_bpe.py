import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tokenizer.conftest import SCRIPTS, TEXTS, old_texts, tricky_texts

from groundup.config.errors import UserError
from groundup.tokenizer import bpe, reference
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE
from groundup.tokenizer.bpe_long import LongWords
from groundup.tokenizer.bpe_train import train_bpe
from groundup.tokenizer.gpt2_vocab import BYTE_ORDER, find_vocabulary, read_merges

SMALL = train_bpe([*SCRIPTS.values(), "the cat sat on the mat; that's that, and the rest is the rest. " * 3], 600)
TO_GPT2 = np.arange(50257)
TO_GPT2[:256] = np.argsort(BYTE_ORDER)
"""Our id of everything in GPT-2's: only the bytes are numbered differently."""


@pytest.fixture(scope="module")
def gpt2_bpe(gpt2_folder):
    """Our encoder with OpenAI's merges."""
    id_of = {bytes([byte]): byte for byte in range(256)}
    merges = []
    for a, b in read_merges(find_vocabulary(gpt2_folder)):
        merges.append((id_of[a], id_of[b]))
        id_of[a + b] = len(id_of)
    return ByteBPE(merges)


def same_as_tiktoken(ours, tiktoken_gpt2, text):
    theirs = tiktoken_gpt2.encode_ordinary(text)
    return TO_GPT2[ours.encode_array(text)].tolist() == theirs and TO_GPT2[ours.encode(text)].tolist() == theirs


def test_it_is_a_tokenizer():
    assert isinstance(SMALL, Tokenizer)


@pytest.mark.parametrize("name", TEXTS)
def test_ids_are_tiktokens(name, gpt2_bpe, tiktoken_gpt2):
    for text in (TEXTS[name], TEXTS[name] + " ", " " + TEXTS[name], TEXTS[name] + "\n \n", TEXTS[name] * 2):
        assert same_as_tiktoken(gpt2_bpe, tiktoken_gpt2, text)


def test_ids_are_tiktokens_on_the_plays(gpt2_bpe, tiktoken_gpt2, plays):
    assert np.array_equal(TO_GPT2[gpt2_bpe.encode_array(plays)], tiktoken_gpt2.encode_to_numpy(plays))


@given(text=tricky_texts | old_texts)
def test_ids_are_tiktokens_on_any_text(text, gpt2_bpe, tiktoken_gpt2):
    assert same_as_tiktoken(gpt2_bpe, tiktoken_gpt2, text)


@pytest.mark.parametrize("unit", ["a", " ", "the"])
def test_ids_are_tiktokens_on_a_megabyte_of_one_character(unit, gpt2_bpe, tiktoken_gpt2):
    text = unit * (1_000_000 // len(unit.encode()))
    assert np.array_equal(TO_GPT2[gpt2_bpe.encode_array(text)], tiktoken_gpt2.encode_ordinary(text))


def test_ids_are_tiktokens_on_long_random_words(gpt2_bpe, tiktoken_gpt2):
    letters = np.random.default_rng(0).integers(97, 123, size=200_000, dtype=np.uint8).tobytes().decode()
    assert np.array_equal(TO_GPT2[gpt2_bpe.encode_array(letters)], tiktoken_gpt2.encode_ordinary(letters))


@given(word=st.binary(min_size=1, max_size=60) | st.text("abc", min_size=1, max_size=200).map(str.encode))
def test_long_words_are_merged_like_short_ones(word):
    for tokenizer in (SMALL, OVERLAPPING):
        assert LongWords(tokenizer.merges).merge(word).tolist() == tokenizer.merge_word(word)


@given(text=st.text("ab \n", max_size=60) | st.text() | tricky_texts)
def test_ids_are_those_of_the_reference(text):
    for tokenizer in (SMALL, OVERLAPPING):
        assert tokenizer.encode(text) == reference.encode(text, tokenizer.merges, tokenizer.pattern)


def test_the_reference_merges_from_left_to_right():
    assert reference.merge([97, 97, 97, 98, 97, 97], (97, 97), 256) == [256, 97, 98, 256]
    assert reference.count({b"aaaa": 2}, {b"aaaa": [97, 97, 97, 97]}) == {(97, 97): 6}


# Merges of merges of one letter, and of pairs that begin as others end: whatever overlaps, overlaps here.
OVERLAPPING = ByteBPE(
    [(97, 97), (256, 256), (256, 97), (257, 257), (97, 98), (98, 97), (259, 258), (98, 98), (260, 97)]
)


def test_no_merges_leaves_bytes():
    tokenizer = ByteBPE([])
    assert tokenizer.encode("né") == [110, 0xC3, 0xA9]
    assert tokenizer.encode("n" * 2000) == [110] * 2000
    assert tokenizer.vocab_size == 257


@given(text=st.text() | tricky_texts)
def test_decoding_gives_the_text_back(text):
    ids = SMALL.encode(text)
    assert SMALL.decode(ids) == text
    assert SMALL.decode_bytes(ids) == text.encode()
    assert SMALL.encode_array(text).dtype == np.uint32
    assert SMALL.encode_array(text).tolist() == ids


@pytest.mark.parametrize(
    "pattern", [r"\w+", r"\d*", "", r"the|(?:cat)", r"[^a]", r"(?i)THE", r"(?s).+", r"\p{L}+(?= )"]
)
@given(text=st.text("the cat1\n", max_size=30) | st.text())
def test_no_pattern_loses_text(pattern, text):
    tokenizer = ByteBPE(SMALL.merges, pattern=pattern)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_pattern_keeps_merges_within_words():
    whole, apart = ByteBPE([(97, 32)], pattern="(?s).+"), ByteBPE([(97, 32)])
    assert whole.encode("a a") == [256, 97]
    assert apart.encode("a a") == [97, 32, 97]


@pytest.mark.parametrize("pattern", ["(a", "(a)b", "[", "\ud800"])
def test_a_bad_pattern_is_refused(pattern):
    with pytest.raises(UserError):
        ByteBPE([], pattern=pattern)


def test_special_tokens_in_text_are_plain_text():
    ids = SMALL.encode("a<|endoftext|>b")
    assert SMALL.eot_id not in ids
    assert SMALL.eot_id not in SMALL.encode_array("a<|endoftext|>b")
    assert SMALL.decode(ids) == "a<|endoftext|>b"


def test_special_tokens_are_ids_when_asked_for():
    tokenizer = ByteBPE([], specials=["<|a|>", "<|a|>b", "<|endoftext|>", "$("])
    assert tokenizer.encode("x<|a|>by<|a|>$(<|endoftext|>", allow_special=True) == [120, 257, 121, 256, 259, 258]
    assert tokenizer.eot_id == 258
    assert tokenizer.decode([257, 258]) == "<|a|>b<|endoftext|>"
    assert tokenizer.encode("", allow_special=True) == []
    assert ByteBPE([], specials=[]).encode("<|a|>", allow_special=True) == list(b"<|a|>")
    assert ByteBPE([], specials=["<|a|>"]).eot_id is None


@pytest.mark.parametrize("encode", [SMALL.encode, SMALL.encode_array])
def test_a_lone_surrogate_is_named_with_its_position(encode):
    with pytest.raises(UserError, match=r"U\+D800 at position 12"):
        encode("a word, then\ud800 and more")


@pytest.mark.parametrize("wrong", [600, -1, 10**9])
def test_an_unknown_id_is_refused(wrong):
    with pytest.raises(UserError, match="outside the vocabulary of 600"):
        SMALL.decode([1, wrong])


def test_half_a_character_decodes_to_a_replacement():
    assert SMALL.decode([97, 0xC3, 98]) == "a\ufffdb"


@pytest.mark.parametrize(
    ("merges", "specials"),
    [
        ([(256, 97)], []),
        ([(97, 257), (97, 98)], []),
        ([(97, -1)], []),
        ([(97, 98), (97, 98)], []),
        ([], ["a", "a"]),
        ([], [""]),
        ([], ["\ud800"]),
    ],
)
def test_what_is_no_vocabulary_is_refused(merges, specials):
    with pytest.raises(UserError):
        ByteBPE(merges, specials=specials)


def test_the_cache_stays_small_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(bpe, "CACHED_WORDS", 5)
    tokenizer = ByteBPE(SMALL.merges)
    for text in TEXTS.values():
        assert tokenizer.encode(text) == SMALL.encode(text)
    assert len(tokenizer._ids_of_word) <= 5


def test_long_words_are_not_kept():
    tokenizer = ByteBPE(SMALL.merges)
    tokenizer.encode("a" * bpe.LONG_WORD)
    assert not tokenizer._ids_of_word


def test_the_fingerprint_changes_with_everything_that_decides_ids():
    merges = [(97, 98), (99, 100)]
    variants = [
        ByteBPE(merges),
        ByteBPE(merges[::-1]),
        ByteBPE(merges[:1]),
        ByteBPE(merges, specials=[]),
        ByteBPE(merges, specials=["<|endoftext|>", "<|x|>"]),
        ByteBPE(merges, specials=["<|x|>", "<|endoftext|>"]),
        ByteBPE(merges, pattern=GPT2_PATTERN + "|x"),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)
    assert ByteBPE(merges).fingerprint == variants[0].fingerprint
