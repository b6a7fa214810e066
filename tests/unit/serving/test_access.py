"""The checks of a server on a machine where a browser runs, as a table."""

import itertools

import pytest

from groundup.cli.main import main
from groundup.cli.serve import Options
from groundup.serving.access import Access
from groundup.serving.errors import RequestError

HOSTS = frozenset({"127.0.0.1:8000", "localhost:8000", "[::1]:8000"})
OPEN = Access(hosts=HOSTS, key=None, page_paths=frozenset({"/", "/main.js"}))
LOCKED = Access(hosts=HOSTS, key="secret", page_paths=frozenset({"/", "/main.js"}))
JSON = ("content-type", "application/json")


def status(access, method="GET", path="/v1/models", host="127.0.0.1:8000", *headers):
    hosts = [("host", value) for value in ([host] if isinstance(host, str) else host)]
    try:
        access.check(method, path, [*hosts, *headers])
    except RequestError as error:
        return error.status
    return 200


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:8000", "[::1]:8000"])
def test_our_own_names_pass(host):
    assert status(OPEN, host=host) == 200


@pytest.mark.fault("F13", "a Host that somebody else could own: DNS rebinding", "421 before anything is read")
@pytest.mark.parametrize(
    "host",
    [
        [],
        "",
        ":8000",
        "127.0.0.1",
        "127.0.0.1:8001",
        "localhost.:8000",
        "localhost.evil.com:8000",
        "evil.com",
        "evil-127.0.0.1:8000",
        "127.0.0.1:8000 ",
        "2130706433:8000",
        ["127.0.0.1:8000", "127.0.0.1:8000"],
        ["127.0.0.1:8000", "evil.com"],
    ],
)
def test_a_name_that_somebody_else_could_own_is_refused(host):
    assert status(OPEN, "GET", "/v1/models", host) == 421
    assert status(OPEN, "GET", "/livez", host) == 421


EVERYWHERE = Access(hosts=None, key="secret", page_paths=frozenset({"/", "/main.js"}))
KEY = ("authorization", "Bearer secret")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([KEY], 200),
        ([], 401),
        ([KEY, ("origin", "http://box.example:9000")], 200),
        ([KEY, ("origin", "https://box.example:9000")], 200),
        ([KEY, ("origin", "http://evil.com")], 403),
        ([KEY, ("origin", "http://box.example")], 403),
        ([KEY, ("sec-fetch-site", "cross-site")], 403),
    ],
)
def test_on_all_addresses_any_name_is_ours_and_the_key_decides(headers, expected):
    """A container cannot know its machine's names, nor the port that is mapped to it."""
    assert status(EVERYWHERE, "GET", "/v1/models", "box.example:9000", *headers) == expected
    assert status(EVERYWHERE, "GET", "/livez", "10.0.0.7:80") == 200
    assert status(EVERYWHERE, "GET", "/livez", ["a", "b"]) == 421


@pytest.mark.fault("F14", "a page of another origin asks", "403")
@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://127.0.0.1:8000", 200),
        ("http://localhost:8000", 200),
        ("https://127.0.0.1:8000", 403),
        ("http://127.0.0.1:8001", 403),
        ("http://127.0.0.1", 403),
        ("http://evil.com", 403),
        ("http://127.0.0.1:8000.evil.com", 403),
        ("null", 403),
        ("", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_only_our_page_may_ask(origin, expected, method):
    assert status(OPEN, method, "/v1/completions", "127.0.0.1:8000", ("origin", origin), JSON) == expected


@pytest.mark.parametrize(
    ("site", "mode", "path", "expected"),
    [
        ("same-origin", "cors", "/v1/models", 200),
        ("none", "navigate", "/v1/models", 200),
        ("same-site", "cors", "/v1/models", 403),  # another port of this machine
        ("cross-site", "no-cors", "/v1/models", 403),
        ("cross-site", "navigate", "/", 200),  # a link to the page
        ("same-site", "navigate", "/", 200),  # the same on a page of another port
        ("same-site", "navigate", "/v1/models", 403),
        ("same-site", "no-cors", "/", 403),
        ("nonsense", "navigate", "/", 403),
        ("cross-site", "navigate", "/v1/models", 403),
        ("cross-site", "no-cors", "/", 403),
    ],
)
def test_fetch_metadata(site, mode, path, expected):
    headers = (("sec-fetch-site", site), ("sec-fetch-mode", mode))
    assert status(OPEN, "GET", path, "127.0.0.1:8000", *headers) == expected


@pytest.mark.fault("F14", "a form is posted", "415: a body is JSON")
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON;charset=UTF-8", 200),
        ("application/json; charset=latin-1", 415),
        ("text/plain", 415),  # what a form may send without asking
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 415),
        ("", 415),
    ],
)
def test_a_body_is_json(kind, expected):
    assert status(OPEN, "POST", "/v1/completions", "127.0.0.1:8000", ("content-type", kind)) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (("content-encoding", "gzip"), 415),
        (("content-length", str(1 << 20)), 200),
        (("content-length", str((1 << 20) + 1)), 413),
        (("content-length", "-1"), 413),
        (("content-length", "x"), 413),
    ],
)
def test_a_body_has_a_size(header, expected):
    assert status(OPEN, "POST", "/v1/completions", "127.0.0.1:8000", JSON, header) == expected


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_are_refused(method):
    assert status(OPEN, method) == 403


@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        ("/v1/models", None, 401),
        ("/v1/models", "Bearer wrong", 401),
        ("/v1/models", "secret", 401),
        ("/v1/models", "Bearer secret", 200),
        ("/v1/models", "bearer secret", 200),
        ("/v1/models", "BEARER secret", 200),
        ("/v1/models", "Bearer SECRET", 401),
        ("/v1/models", "Basic secret", 401),
        ("/api/facts", None, 401),
        ("/metrics", None, 401),
        ("/livez", None, 200),
        ("/readyz", None, 200),
        ("/", None, 200),
        ("/main.js", None, 200),
        ("/main.js/../v1/models", None, 401),
    ],
)
def test_a_key_is_asked_for_everywhere_but_at_the_page(path, key, expected):
    headers = [] if key is None else [("authorization", key)]
    assert status(LOCKED, "GET", path, "127.0.0.1:8000", *headers) == expected


WRONG = {
    421: {"host": "evil.com"},
    403: {"origin": "http://evil.com", "sec-fetch-site": "cross-site"},
    415: {"content-type": "text/plain"},
    413: {"content-length": "9" * 30},
    401: {"authorization": "Bearer wrong"},
}
"""What is wrong with a request, in the order in which it is looked at."""
RIGHT = {
    "host": "localhost:8000",
    "origin": "http://localhost:8000",
    "sec-fetch-site": "same-origin",
    "content-type": "application/json",
    "content-length": "2",
    "authorization": "Bearer secret",
}


@pytest.mark.fault("F16", "a request of which several things are wrong, in any combination", "the first check answers")
@pytest.mark.parametrize("faults", [pick for n in range(6) for pick in itertools.combinations(WRONG, n)])
def test_checks_have_an_order(faults):
    headers = RIGHT | {name: value for code in faults for name, value in WRONG[code].items()}
    host = headers.pop("host")
    assert status(LOCKED, "POST", "/v1/completions", host, *headers.items()) == (faults[0] if faults else 200)


def test_every_answer_carries_the_headers_and_none_opens_the_server_to_others(client):
    for path, code in (("/v1/models", 200), ("/nothing", 404), ("/livez", 200)):
        answer = client.get(path)
        assert answer.status_code == code
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control")]
    refused = client.get("/v1/models", headers={"host": "evil.com"})
    assert refused.status_code == 421
    assert "content-security-policy" in refused.headers


@pytest.mark.fault("F16", "requests without the key", "401 at every route but /livez and /readyz")
def test_every_route_of_the_table_needs_the_key(models, serve):
    client = serve(models, key="secret")
    routes = client.app.app.routes
    assert len(routes) > 25
    for route in routes:
        for method in route.methods - {"HEAD"}:
            path = route.path.replace("{id:path}", "tiny")
            answer = client.request(method, path, json={} if method == "POST" else None)
            assert answer.status_code == (200 if path in ("/livez", "/readyz") else 401), path


@pytest.mark.parametrize("key", ["\u00fc", " a b ", "a\n", " ", "a\x7f", "k" * 1001])
@pytest.mark.parametrize("by", ["flag", "environment"])
def test_a_key_that_no_client_can_send_is_refused_at_the_start(monkeypatch, capsys, key, by):
    if by == "environment":
        monkeypatch.setenv("GROUNDUP_API_KEY", key)
    assert main(["serve", "nowhere", *(["--api-key", key] if by == "flag" else [])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the API key must be 1 to 1,000 letters" in line
    assert len(line) < 250


def test_any_key_that_can_be_sent_is_taken(tmp_path):
    key = "".join(map(chr, range(33, 127)))
    assert Options(paths=(tmp_path,), api_key=key).key == key
    locked = Access(hosts=HOSTS, key=key, page_paths=frozenset())
    assert status(locked, "GET", "/v1/models", "127.0.0.1:8000", ("authorization", f"Bearer {key}")) == 200
