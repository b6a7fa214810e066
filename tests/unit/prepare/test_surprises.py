"""What is said of data that may surprise."""

import random

import pytest

from groundup.config.data import ShardConfig
from groundup.data.dataset import TokenDataset
from groundup.formats.document import Document
from groundup.prepare.prepare import prepare
from groundup.prepare.surprises import unlike
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
