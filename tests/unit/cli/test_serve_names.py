"""By which names a server is called."""

import pytest

from groundup.cli.serve import _names


@pytest.mark.parametrize(
    ("host", "port", "names"),
    [
        ("127.0.0.1", 8000, {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}),
        ("Box", 80, {"box:80", "box"}),
        ("0.0.0.0", 8000, None),
        ("::", 8000, None),
    ],
)
def test_names(host, port, names):
    assert _names(host, port) == names
