"""Where a server listens, and by which names it is called."""

import pytest

from groundup.config.errors import UsageError, UserError
from groundup.serving.address import check_key, listen, names_of, url_of


@pytest.mark.parametrize(
    ("host", "port", "names"),
    [
        ("127.0.0.1", 8000, {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}),
        ("Box", 80, {"box:80", "box"}),
        ("0.0.0.0", 8000, None),
        ("::", 8000, None),
        ("fd00::2", 8933, {"[fd00::2]:8933"}),
        ("FD00:0::2", 80, {"[fd00::2]:80", "[fd00:0::2]:80", "[fd00::2]", "[fd00:0::2]"}),
        ("fe80::1%eth0", 8000, {"[fe80::1]:8000", "[fe80::1%eth0]:8000"}),
        ("0:0:0:0:0:0:0:1", 8000, {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}),
        ("0:0:0:0:0:0:0:0", 8000, None),
    ],
)
def test_names(host, port, names):
    assert names_of(host, port) == names


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("::1", "http://[::1]:80/"),
        ("::", "http://localhost:80/"),
        ("fd00::2", "http://[fd00::2]:80/"),
    ],
)
def test_url(host, url):
    assert url_of(host, 80) == url


def test_whoever_others_can_reach_needs_a_key_however_the_address_is_written():
    check_key(None, "0:0:0:0:0:0:0:1")
    for host in ("fd00::2", "0:0:0:0:0:0:0:0", "0.0.0.0"):
        with pytest.raises(UsageError, match="can be reached by others"):
            check_key(None, host)


@pytest.mark.fault("F13", "a host to listen on that is no name of anything", "one line, before a model is loaded")
@pytest.mark.parametrize("host", ["256.1.1.1", "a\0b", "é" * 300, "a" * 100_000, ":::", "\ud800"])
def test_no_address(host):
    with pytest.raises(UserError, match=r"no address is known for |cannot listen on ") as caught:
        listen(host, 0)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("host", ["nope.invalid", "256.1.1.1"])
def test_a_name_without_an_address_is_no_matter_of_ports(host):
    with pytest.raises(UserError, match=f"no address is known for {host}; --host takes one of this machine"):
        listen(host, 0)


def test_a_port_that_is_taken():
    with listen("127.0.0.1", 0) as taken, pytest.raises(UserError, match="take another with --port"):
        listen("127.0.0.1", taken.getsockname()[1])
