"""Where a server listens, and by which names it is called."""

import pytest

from groundup.serving.address import names_of, url_of


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
    assert names_of(host, port) == names


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:80/"), ("::1", "http://[::1]:80/"), ("::", "http://localhost:80/")],
)
def test_url(host, url):
    assert url_of(host, 80) == url
