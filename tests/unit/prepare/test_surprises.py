"""What is said of data that may surprise."""

import random

import pytest

from groundup.config.data import ReadConfig, ShardConfig
from groundup.config.errors import UserError
from groundup.corpora.local_files import LocalFiles
from groundup.data.dataset import TokenDataset
from groundup.data.index import load_index
from groundup.formats.document import Document
from groundup.prepare.prepare import prepare
from groundup.prepare.surprises import surprises, unlike
from groundup.tokenizer.char import CharTokenizer

ENGLISH = "the quick brown fox jumps over the lazy dog and tells nobody what it saw there "
ARABIC = "".join(map(chr, range(0x628, 0x63A))) + " " + "".join(map(chr, range(0x641, 0x64A))) + " "
CODE = "for i in range(10): x[i] = (y[i] + 3) * z[i - 1]\n"


class Texts:
    """A source of two texts, one for each split."""

    name = "texts"

    def __init__(self, train, val):
        self.texts = {"train": train, "val": val}

    def describe(self):
        return {}

    def parts(self):
        return ["all"]

    def read(self, part, skipped):
        for split, text in self.texts.items():
            yield Document(text, split)


def words_of(text, n, seed):
    draw = random.Random(seed)
    return " ".join(draw.choice(text.split()) for _ in range(n))


@pytest.mark.parametrize(
    ("train", "val", "told"),
    [(ENGLISH, ENGLISH, False), (ENGLISH, ARABIC, True), (ENGLISH, CODE, True), (ENGLISH + CODE, CODE, False)],
)
def test_a_validation_text_of_another_kind_is_told(tmp_path, train, val, told):
    source = Texts(words_of(train, 9000, 1), words_of(val, 1000, 2))
    letters = CharTokenizer.from_text(set(ENGLISH + ARABIC + CODE), separates=False)
    prepare(source, letters, tmp_path / "data", ShardConfig(shard_tokens=20_000))
    lines = list(unlike(TokenDataset(tmp_path / "data")))
    assert [line.split(":")[0] for line in lines] == ["the validation text is unlike the training text"] * told


def test_of_too_little_text_nothing_is_said(tmp_path):
    source = Texts(words_of(ENGLISH, 500, 1), words_of(ARABIC, 50, 2))
    prepare(source, CharTokenizer.from_text(set(ENGLISH + ARABIC), separates=False), tmp_path / "data", ShardConfig())
    assert list(unlike(TokenDataset(tmp_path / "data"))) == []


@pytest.mark.parametrize(
    ("block_size", "told"),
    [
        (0, "the validation split has 200 tokens: its loss says little; use more text or a larger --val-fraction"),
        (
            64,
            "the validation split has 200 tokens, less than 4 blocks of 64: its loss says little; use more text or a"
            " larger --data.val-fraction, or a smaller --model.block-size",
        ),
        (50, None),
    ],
)
def test_a_small_validation_split_is_told_with_what_helps(tmp_path, block_size, told):
    letters = CharTokenizer.from_text(set(ENGLISH), separates=False)
    index = prepare(Texts(ENGLISH * 99, (ENGLISH * 9)[:200]), letters, tmp_path / "data", ShardConfig())
    assert list(surprises(index, block_size)) == [told] * (told is not None)


def test_a_validation_split_that_is_large_enough_is_not_told(tmp_path):
    letters = CharTokenizer.from_text(set(ENGLISH), separates=False)
    index = prepare(Texts(ENGLISH * 99, (ENGLISH * 99)[:2000]), letters, tmp_path / "data", ShardConfig())
    assert list(surprises(index)) == []


class TestAnAlphabetMadeForAnotherText:
    LETTERS = CharTokenizer.from_text("abcdefghijklmnopqrstuvwxyz .\n")

    def test_what_it_lacks_is_left_out_counted_and_told(self, tmp_path):
        text = "a line of 1,000 words… and more of them.\n" * 50
        (tmp_path / "notes.txt").write_text(text, "utf-8")
        index = prepare(LocalFiles(str(tmp_path / "notes.txt")), self.LETTERS, tmp_path / "data", ShardConfig())
        assert index.unknown == {"0": 150, "1": 50, ",": 50, "…": 50}
        assert load_index(tmp_path / "data") == index
        data = TokenDataset(tmp_path / "data")
        splits = [data.split("train"), data.split("val")]
        ids = [i for split in splits for i in split.read(0, 0, split.n_tokens)]
        assert self.LETTERS.decode(ids) == "".join(c for c in text if c in self.LETTERS.symbols)
        assert [line for line in surprises(index) if line.startswith("left out")] == [
            "left out 300 characters (14.63%) that the tokenizer does not know: '0' 150x, ',' 50x, '1' 50x, '…' 50x;"
            " a model of its own learns them all (groundup train TEXT)"
        ]

    def test_a_text_that_is_mostly_in_other_letters_is_refused_with_the_command_that_learns_it(self, tmp_path):
        (tmp_path / "my notes.txt").write_text("привет, мир. and some words\n" * 50, "utf-8")
        source = LocalFiles(str(tmp_path / "my notes.txt"), ReadConfig())
        with pytest.raises(UserError) as caught:
            prepare(source, self.LETTERS, tmp_path / "data", ShardConfig())
        assert str(caught.value) == (
            "the text has 500 characters (35.71%) that the tokenizer does not know: '\u0438' 100x, '\u0440' 100x,"
            " ',' 50x, '\u0432' 50x, '\u0435' 50x, and 3 others; these are too many to be left out; a model with an"
            f" alphabet of its own learns them all: groundup train '{tmp_path}/my notes.txt'"
        )
        assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(("names", "separates"), [("ab", False), ("ab", True), ("a", False)])
def test_documents_that_run_together_are_told(tmp_path, names, separates):
    (tmp_path / "texts").mkdir()
    for name in names:
        (tmp_path / "texts" / f"{name}.txt").write_text(words_of(ENGLISH, 2000, name))
    letters = CharTokenizer.from_text(set(ENGLISH), separates=separates)
    index = prepare(LocalFiles(str(tmp_path / "texts")), letters, tmp_path / "data", ShardConfig(val_fraction=0.4))
    told = [line for line in surprises(index) if "run together" in line]
    assert [line.split(";")[0] for line in told] == [
        "2 documents run together, for the tokenizer has no <|endoftext|> to set between them"
    ] * (len(names) > 1 and not separates)
