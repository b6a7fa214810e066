import pytest

from groundup.config.errors import UsageError
from groundup.config.presets import RECIPES
from groundup.terminal.words import plain_places, split_equals, switches, take_switch, take_value


def test_words_are_taken_out():
    words = split_equals(["a", "--config=x=y", "--lr=1", "--resume", "--dry-run"], "--config")
    assert words == ["a", "--config", "x=y", "--lr=1", "--resume", "--dry-run"]
    assert take_value(words, "--config") == "x=y"
    assert take_value(words, "--resume", optional=True) is None
    assert (take_switch(words, "--dry-run"), take_switch(words, "--dry-run")) == (True, False)
    assert take_value(words, "--config") is None
    assert words == ["a", "--lr=1"]
    with pytest.raises(UsageError, match="--out needs a value"):
        take_value(["--out", "--lr"], "--out")


@pytest.mark.parametrize(
    ("words", "plain"),
    [
        ("--max-steps 5 a", "a"),
        ("--max-steps=5 a --seed -1 b", "a b"),
        ("a --no-profile b --optim.no-cautious-decay c", "a b c"),
        ("--profile a --optim.cautious_decay b", "a b"),
        ("--name a -h b", "b"),
        ("--name a", ""),
        ("--seed 3 -", "-"),
        ("", ""),
    ],
)
def test_words_that_are_no_flags_and_no_values(words, plain):
    listed = words.split()
    assert [listed[at] for at in plain_places(listed, switches(RECIPES["shakespeare"]))] == plain.split()


def test_every_switch_of_a_config_is_known():
    known = switches(RECIPES["shakespeare"])
    assert {"--profile", "--model.qk-norm", "--log.tensorboard", "--runtime.recompute"} <= known
    assert not {"--max-steps", "--runtime.compile", "--init-from", "--model.position"} & known
    for recipe in RECIPES.values():
        assert switches(recipe) <= known
