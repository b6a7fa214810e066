import pytest

from groundup.config.errors import UsageError
from groundup.terminal.words import split_equals, take_switch, take_value


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
