"""Limits are told by name, and raised by the variable that the message names."""

import re

import pytest

from groundup.config import limits
from groundup.config.errors import UsageError, UserError
from groundup.config.limits import Limit


def test_a_limit_is_told_and_raised(monkeypatch):
    limit = Limit("GROUNDUP_MAX_TEST", 10, "bytes")
    limit.check(10, "it")
    with pytest.raises(UserError, match=r"line 3 takes more than 10 bytes; .* set GROUNDUP_MAX_TEST higher"):
        limit.check(11, "line 3")
    monkeypatch.setenv("GROUNDUP_MAX_TEST", "11")
    limit.check(11, "line 3")


@pytest.mark.parametrize("text", ["", "0", "-1", "1e9", "x", "9" * 19, "٣"])
def test_a_variable_that_is_no_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("GROUNDUP_MAX_JSON_BYTES", text)
    with pytest.raises(
        UsageError, match=re.escape(f"GROUNDUP_MAX_JSON_BYTES must be a whole number above 0, got {text!r}")
    ):
        limits.JSON_BYTES.check(1, "it")
