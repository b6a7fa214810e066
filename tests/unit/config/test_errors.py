import errno

import pytest

from groundup.config.errors import UserError, first_line, reading


@pytest.mark.parametrize(
    ("error", "line"),
    [(RuntimeError(), "RuntimeError"), (ValueError("\n one \n two"), "one"), (OSError("gone"), "gone")],
)
def test_an_error_is_told_by_its_first_line_or_its_kind(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize("error", [OSError("no such thing"), OSError(errno.ENOENT, "no such thing", "x")])
def test_what_cannot_be_read_is_named_with_the_reason(error):
    with pytest.raises(UserError, match=r"^cannot read x: no such thing$"), reading("x"):
        raise error
