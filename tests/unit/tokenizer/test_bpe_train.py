import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.tokenizer.conftest import TEXTS

from groundup.config.errors import UserError
from groundup.tokenizer import bpe_train, reference
from groundup.tokenizer.bpe import GPT2_PATTERN, ByteBPE
from groundup.tokenizer.bpe_train import count_words, learn_merges, learn_merges_with_library, train_bpe

corpora = st.dictionaries(
    st.binary(min_size=1, max_size=10) | st.text("ab", min_size=1, max_size=15).map(str.encode),
    st.integers(1, 30),
    max_size=15,
)


@given(words=corpora, n_merges=st.integers(0, 40))
def test_updating_counts_is_the_same_as_counting_anew(words, n_merges):
    assert learn_merges(words, n_merges) == reference.train(words, n_merges)


@given(words=corpora, n_merges=st.integers(0, 40))
def test_the_library_learns_the_same(words, n_merges):
    pytest.importorskip("tokenizers")
    assert learn_merges_with_library(words, n_merges) == reference.train(words, n_merges)


@pytest.mark.parametrize(
    "text",
    [
        "zyxwvutsrqponmlkjihgfedcba",  # nothing but ties
        "ba ab ba ab cd dc",
        "aaaaaaaaaa aaaaa aaa",
        "\x00\x01 \x7f\x80\xff é\n\n\tж ш",  # bytes whose order differs in GPT-2's alphabet
        "".join(TEXTS.values()),
    ],
)
def test_ties_are_broken_alike(text):
    pytest.importorskip("tokenizers")
    words = count_words([text])
    merges = learn_merges(words, 3000)
    assert merges == learn_merges_with_library(words, 3000)
    assert merges[:300] == reference.train(words, 300)


def test_ties_are_broken_on_the_plays(plays):
    pytest.importorskip("tokenizers")
    words = count_words([plays[:1_000_000]])
    assert learn_merges(words, 4096) == learn_merges_with_library(words, 4096)


def test_the_library_is_fed_every_word_as_often_as_it_occurs(monkeypatch):
    monkeypatch.setattr(bpe_train, "WORDS_AT_ONCE", 3)
    assert Counter("".join(bpe_train._repeated({b"a": 7, b"b": 3, b"c": 1})).split("\n")) == {
        "\u0161": 7, "\u0162": 3, "\u0163": 1, "": 1,
    }  # fmt: skip


def test_the_smaller_ids_win_a_tie():
    assert learn_merges({b"ba": 1, b"ab": 1, b"aa": 1}, 3) == [(97, 97), (97, 98), (98, 97)]
    assert learn_merges({b"ab": 1, b"zz": 2}, 1) == [(122, 122)]


def test_the_example_of_wikipedia():
    tokenizer = train_bpe(["aaabdaaabac"], 259, specials=[])
    assert tokenizer.merges == [(97, 97), (97, 98), (256, 257)]
    assert tokenizer.encode("aaabdaaabac") == [258, 100, 258, 97, 99]


def test_words_never_reach_over_the_end_of_a_text():
    assert count_words(["ab", "ab c"]) == {b"ab": 2, b" c": 1}
    assert train_bpe(["a", "b"], 300).merges == []


def test_what_was_learned_comes_back_in_order():
    """Encoding the corpus applies the merges: the first is nowhere left undone."""
    text = "".join(TEXTS.values())
    tokenizer = train_bpe([text], 700)
    ids = tokenizer.encode(text)
    assert len(ids) < 0.6 * len(text.encode())
    assert tokenizer.vocab_size == 700
    assert max(ids) < 699


def test_a_small_corpus_gives_a_small_vocabulary():
    tokenizer = train_bpe(["abc"], 5000)
    assert tokenizer.encode("abc") == [257]
    assert tokenizer.vocab_size == 259
    assert train_bpe([], 5000).vocab_size == 257


def test_pattern_and_special_tokens_reach_the_tokenizer():
    tokenizer = train_bpe(["a b"], 300, specials=["<|x|>", "<|y|>"], pattern=r"(?s).+")
    assert tokenizer.merges == [(32, 98), (97, 256)]
    assert (tokenizer.pattern, tokenizer.specials) == (r"(?s).+", ["<|x|>", "<|y|>"])
    assert ByteBPE([]).pattern == GPT2_PATTERN


@pytest.mark.parametrize("size", [256, 0, -1])
def test_a_vocabulary_needs_room_for_the_bytes(size):
    with pytest.raises(UserError, match="at least 257"):
        train_bpe(["abc"], size)


def test_a_lone_surrogate_is_refused():
    with pytest.raises(UserError, match="position 1"):
        train_bpe(["a\udc00"], 300)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"groundup\[train-bpe\]"):
        train_bpe(["abc"], 300, trainer="library")
