from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.config.model import GPTConfig
from groundup.config.presets import MODELS
from groundup.planner.own_text import MOST_PASSES, Text, finetune_recipe, name_of, steps_of_a_pass, text_recipe
from groundup.planner.params import count_parameters


def text(n_bytes, *, gpu=False, **more):
    return Text(Path("notes"), n_bytes, gpu, **more)


@given(st.integers(1, 10**12), st.booleans())
def test_every_size_has_a_recipe_that_passes_the_text_some_times(n_bytes, gpu):
    config = text_recipe(text(n_bytes, gpu=gpu))
    spelled = 1 if config.data.tokenizer == "char" else 4
    passes = config.max_steps * config.tokens_per_step / (0.9 * n_bytes / spelled)
    assert passes <= MOST_PASSES or config.max_steps == 20  # a text of some lines has the fewest steps
    assert (config.name, config.data.source, config.data.path) == ("notes", "text", Path("notes"))


@given(st.integers(1, 10**11), st.integers(1, 10**11), st.booleans())
def test_more_text_never_has_a_smaller_model(one, other, gpu):
    def weights(size):
        return count_parameters(replace(text_recipe(text(size, gpu=gpu)).model, vocab_size=100))

    assert weights(min(one, other)) <= weights(max(one, other))


def test_plays_have_the_model_and_the_rates_of_the_demo():
    config = text_recipe(text(4_784_721))
    assert config.model == MODELS["nano"]
    assert (config.optim.name, config.optim.lr, config.max_steps) == ("muon", 3e-3, 1400)


@given(st.integers(1, 10**10), st.booleans(), st.sampled_from(["gpt2", "nano"]))
def test_every_size_can_be_fine_tuned_on(n_bytes, gpu, name):
    vocab = 50257 if name == "gpt2" else 65
    model = MODELS[name]
    config = finetune_recipe(
        text(n_bytes, gpu=gpu),
        model,
        init_from=Path("models/gpt2"),
        tokenizer="models/gpt2/tokenizer.json",
        vocab=vocab,
    )
    assert config.init_from == Path("models/gpt2")
    assert config.model.block_size <= model.block_size
    assert config.name == "gpt2-notes"
    assert 5e-5 <= config.optim.lr <= 5e-3


@pytest.mark.parametrize(("n_bytes", "rank"), [(200_000, 4), (4_000_000, 8), (400_000_000, 0)])
def test_a_short_text_changes_a_large_model_little(n_bytes, rank):
    config = finetune_recipe(text(n_bytes), GPTConfig(), init_from=Path("models/gpt2"), tokenizer="gpt2", vocab=50257)
    assert config.lora.rank == rank


def test_shards_are_counted_by_their_tokens():
    config = text_recipe(text(4_000_000, shards=True, n_tokens=1_000_000, vocab_size=50257))
    assert config.data.source == "shards"
    assert steps_of_a_pass(text(4_000_000, shards=True, n_tokens=1_000_000), config) == round(900_000 / 2048)


@pytest.mark.parametrize(
    ("path", "name"),
    [("notes", "notes"), ("notes/", "notes"), ("my notes.txt", "my notes"), ("poems/*.txt", "poems"),
     ("a/b.c/**/*.md", "b.c"), ("/data/x.jsonl.gz", "x.jsonl"), ("*.txt", None)],
)  # fmt: skip
def test_a_run_has_the_name_of_its_text(path, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert name_of(Path(path)) == (name or tmp_path.name)


@pytest.mark.parametrize(
    ("file", "name"),
    [("a[1].txt", "a[1]"), ("pr [y]", "pr [y]"), ("what?.txt", "what?")],
)
def test_a_path_that_is_there_is_no_glob(file, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(file).touch()
    assert name_of(Path(file)) == name


@pytest.mark.parametrize(
    ("file", "name"), [("a\nb.txt", "a_b"), ("a\\b.txt", "a_b"), ("b\udce4.txt", "b_"), ("tä b.txt", "tä b")]
)
def test_the_name_of_a_text_becomes_one_that_a_run_can_have(file, name):
    config = text_recipe(replace(text(10**6), path=Path(file)))
    assert (config.name, config.data.path) == (name, Path(file))
