"""A plan has the vocabulary that the run will have, or says that it guesses."""

import dataclasses
import json
import os

import pytest

from groundup.config.data import DataConfig
from groundup.config.errors import UserError
from groundup.config.presets import RECIPES
from groundup.prepare import vocabulary as module
from groundup.prepare.corpus import make_source, make_tokenizer, open_corpus
from groundup.prepare.vocabulary import ALPHABETS, ASSUMED_VOCAB, known_vocabulary

SIGNS = "".join(chr(0x4E00 + i) for i in range(2500))


def run(path, cache=None, **model):
    data = DataConfig(source="text", path=path, **({"cache_dir": cache} if cache else {}))
    recipe = RECIPES["shakespeare"]
    return dataclasses.replace(recipe, data=data, model=dataclasses.replace(recipe.model, **model))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "zh.txt"
    path.write_text("".join(f"{SIGNS[i : i + 50]}\n" for i in range(0, 2500, 50)) * 20)
    return path


def test_a_text_is_counted_as_its_preparation_counts(tmp_path, text):
    lines = tmp_path / "documents.jsonl"
    lines.write_text("".join(json.dumps({"text": word * 50}) + "\n" for word in ("ab", "cd", "ef")))
    for path, ids in ((text, 2501), (lines, 7), (tmp_path, 2508)):  # several documents have an end, too
        assert known_vocabulary(run(path)) == (ids, False)
        assert open_corpus(run(path, tmp_path / ".cache").data).index.vocab_size == ids


def test_a_long_text_is_assumed_until_it_is_prepared(tmp_path, text, monkeypatch):
    monkeypatch.setattr(module, "COUNTED_BYTES", text.stat().st_size - 1)
    config = run(text, tmp_path / "cache")
    assert known_vocabulary(config) == (ASSUMED_VOCAB, True)
    open_corpus(config.data)
    assert known_vocabulary(config) == (2501, False)
    text.write_text(text.read_text() + "another text than was prepared")
    assert known_vocabulary(config) == (ASSUMED_VOCAB, True)


def test_what_cannot_be_read_is_assumed(tmp_path):
    (tmp_path / "damaged.txt.gz").write_bytes(b"\x1f\x8bno gzip")
    os.mkfifo(tmp_path / "pipe")
    for name in ("gone.txt", "none*.txt", "damaged.txt.gz", "pipe"):
        assert known_vocabulary(run(tmp_path / name)) == (ASSUMED_VOCAB, True)


def test_a_config_that_names_another_vocabulary_is_refused_as_the_run_would_be(text):
    with pytest.raises(UserError, match=r"model\.vocab_size is 65 but the data's tokenizer has 2501 ids"):
        known_vocabulary(run(text, vocab_size=65))


@pytest.mark.parametrize("name", ALPHABETS)
def test_corpora_that_never_change_are_known(name, tiny_shakespeare):
    path = tiny_shakespeare if name == "tiny-shakespeare" else None
    config = dataclasses.replace(RECIPES[name], data=DataConfig(source=name, path=path))
    assert known_vocabulary(config) == (make_tokenizer("char", make_source(config.data)).vocab_size, False)
