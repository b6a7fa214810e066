"""A real socket, and clients that speak something else than HTTP/1.1, or too much of it."""

import asyncio
import contextlib
import itertools
import json
import random
import re
import signal
import socket
import threading
import time

import httpx
import pytest

from groundup.playground import start
from groundup.serving import connection as limits
from groundup.serving import loop as engine_loop
from groundup.serving.access import Access
from groundup.serving.app import Server, build_app

ASK = b'{"prompt": "a", "max_tokens": 1}'


class Served:
    """A server on a thread, and what its loop had to say of exceptions that nobody caught."""

    def __init__(self, models, loop):
        self.unhandled = []
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = listener.getsockname()
        name = f"127.0.0.1:{self.address[1]}"
        app = build_app(Server(models, loop), Access(hosts=frozenset({name}), key=None, page_paths=frozenset()))

        async def watched(scope, receive, send):
            asyncio.get_running_loop().set_exception_handler(lambda _, context: self.unhandled.append(context))
            try:
                await app(scope, receive, send)
            except Exception as error:
                self.unhandled.append(error)
                raise

        self.server = start.http_server(watched)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]})
        self.thread.start()

    def head(self, method=b"POST", path=b"/v1/completions", more=b""):
        host = b"Host: 127.0.0.1:%d\r\nContent-Type: application/json\r\n" % self.address[1]
        return b"%s %s HTTP/1.1\r\n%s%s" % (method, path, host, more)

    def whole(self, body=ASK, **more):
        return self.head(**more) + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def answers(self, *pieces, pause=0.0):
        """All that comes until the server closes; `pieces` are sent one after the other."""
        with socket.create_connection(self.address, timeout=60) as connection:
            told = b""
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(pause)
            with contextlib.suppress(ConnectionError):
                while data := connection.recv(65536):
                    told += data
            return told

    def is_well(self):
        url = f"http://127.0.0.1:{self.address[1]}"
        assert httpx.get(f"{url}/livez", timeout=60).status_code == 200
        assert httpx.post(f"{url}/v1/completions", json=json.loads(ASK), timeout=60).status_code == 200
        assert self.unhandled == []


@pytest.fixture
def served(models, loop, capfd):
    served = Served(models, loop)
    yield served
    served.server.should_exit = True
    served.thread.join()
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")  # what clients do wrong fills no log


CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.fault(
    "F6",
    "bytes that are no HTTP/1.1: TLS, HTTP/2, lengths that contradict each other, chunks that are none",
    "a 4xx with the reason in JSON; no line in the log, and others are answered",
)
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (lambda s: bytes.fromhex("16030100c8010000c40303") + b"\x07" * 100, 400),
        (lambda s: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (lambda s: b"GET /livez\r\n\r\n", 421),
        (lambda s: b"GET /livez HTTP/1.0\r\n\r\n", 421),
        (lambda s: s.head(b"GET", b"/livez", b"X : a\r\n") + b"\r\n", 400),
        (lambda s: s.head(b"GET", b"/livez", b"X: \0\r\n") + b"\r\n", 400),
        (lambda s: s.head(more=b"Content-Length: 5\r\nContent-Length: 6\r\n") + b"\r\nhello", 400),
        (lambda s: s.head(more=b"Content-Length: +5\r\n") + b"\r\nhello", 400),
        (lambda s: s.head(more=b"Content-Length: 1" + b"0" * 5000 + b"\r\n") + b"\r\nhello", 400),
        (lambda s: s.head(more=CHUNKED + b"Content-Length: 5\r\n") + b"\r\n0\r\n\r\n", 400),
        (lambda s: s.head(more=b"Transfer-Encoding: gzip\r\n") + b"\r\n0\r\n\r\n", 400),
        (lambda s: s.head(more=b"Transfer-Encoding: gzip, chunked\r\n" + CLOSE) + b"\r\n0\r\n\r\n", 400),
        (lambda s: s.head(more=CHUNKED) + b"\r\nzz\r\n", 400),
        (lambda s: s.head(b"A" * 9000, b"/livez", CLOSE) + b"\r\n", 400),
        (lambda s: s.head(b"CONNECT", b"evil.com:443", CLOSE) + b"\r\n", 400),
        (lambda s: s.head(b"GET", b"http://evil.com/livez", CLOSE) + b"\r\n", 400),
        (lambda s: s.head(b"GET", b"/livez", b"X: " + b"a" * 20_000), 400),
        (lambda s: s.head(b"GET", b"/livez", b"X: " + b"a" * 20_000 + b"\r\n") + b"\r\n", 400),
        (lambda s: s.head(b"GET", b"/livez?" + b"a" * 20_000) + b"\r\n", 400),
        (lambda s: (s.head(b"GET", b"/livez") + b"\r\n") * 70, 400),
    ],
)
def test_what_is_no_http(served, sent, status):
    told = served.answers(sent(served), pause=0.05)
    assert int(told.split()[1]) == status
    head, _, rest = told.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])
    message = json.loads(rest[:length])["error"]["message"]
    assert 0 < len(message) < 200
    assert "\n" not in message
    served.is_well()


@pytest.mark.fault("F6", "nonsense behind the head of a request that was answered already", "the connection ends")
def test_nonsense_after_an_early_answer(served):
    refused = served.head(more=b"Content-Encoding: gzip\r\n" + CHUNKED) + b"\r\n"
    with socket.create_connection(served.address, timeout=60) as connection:
        connection.sendall(refused)
        assert connection.recv(4096).startswith(b"HTTP/1.1 415 ")
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"zz\r\n" * 10)
            while connection.recv(4096):
                pass
    served.is_well()


@pytest.mark.fault("F2", "a client goes away in the middle of its body", "nobody notices, and nothing is in the log")
def test_a_client_that_leaves_in_the_middle_of_its_body(served):
    for path in (b"/v1/completions", b"/tokenize"):
        with socket.create_connection(served.address) as connection:
            connection.sendall(served.head(path=path, more=b"Content-Length: 100\r\n") + b"\r\n{")
    served.is_well()


@pytest.mark.fault("F6", "a request that asks for a websocket or for HTTP/2", "it is answered as HTTP/1.1")
@pytest.mark.parametrize("kind", [b"websocket", b"h2c"])
def test_an_upgrade(served, kind):
    more = b"Upgrade: %s\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AA==\r\nSec-WebSocket-Version: 13\r\n" % kind
    with socket.create_connection(served.address, timeout=60) as connection:
        connection.sendall(served.head(b"GET", b"/livez", more) + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    served.is_well()


@pytest.mark.fault("F6", "requests that are sent before the last one is answered", "each is answered, in their order")
def test_requests_on_the_heels_of_each_other(served):
    bodies = [b'{"prompt": "%s", "max_tokens": 0, "echo": true}' % letter for letter in (b"a", b"b", b"c")] * 10
    told = served.answers(b"".join(map(served.whole, bodies)) + served.head(b"GET", b"/livez", CLOSE) + b"\r\n")
    assert told.count(b"HTTP/1.1 200 ") == 31
    texts = [part[:1] for part in told.split(b'"text":"')[1:]]
    assert texts == [b"a", b"b", b"c"] * 10
    served.is_well()


@pytest.mark.fault("F6", "requests that come in pieces, cut anywhere", "answered as those that come whole")
def test_requests_in_pieces(served):
    sent = served.whole() + served.whole(more=b"X: " + b"a" * 15_000 + b"\r\n") + served.whole(more=CLOSE)
    draw = random.Random(0)
    for n_cuts in (1, 3, 10):
        cuts = [0, *sorted(draw.sample(range(1, len(sent)), n_cuts)), len(sent)]
        pieces = [sent[begin:end] for begin, end in itertools.pairwise(cuts)]
        assert served.answers(*pieces, pause=0.02).count(b"HTTP/1.1 200 ") == 3
    served.is_well()


@pytest.mark.fault(
    "F6", "a body in chunks of a byte, with headers behind it", "read as any other; those headers are not"
)
def test_a_body_in_small_chunks(served):
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in ASK)
    told = served.answers(served.head(more=CHUNKED + CLOSE) + b"\r\n" + pieces + b"0\r\nHost: evil.com\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200 ")
    served.is_well()


@pytest.mark.fault(
    "F6",
    "more connections than the server takes, kept open",
    "503 with the reason beyond them; all is well when they go",
)
def test_too_many_connections(served, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS", 20)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(served.address, timeout=60)) for _ in range(40)]
        for connection in opened:
            connection.sendall(served.head(b"GET", b"/livez") + b"\r\n")
        told = [connection.recv(4096) for connection in opened]
        refused = next(first + opened[i].recv(4096) for i, first in enumerate(told) if b" 503 " in first)
    assert sorted(answer.split()[1] for answer in told) == [b"200"] * 20 + [b"503"] * 20
    assert b'"code":"too_many_connections"' in refused
    assert b"\r\nretry-after: 1\r\n" in refused
    deadline = time.monotonic() + 30
    while httpx.get(f"http://127.0.0.1:{served.address[1]}/livez", timeout=60).status_code == 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    served.is_well()


@pytest.mark.fault("F9", "health is asked while a megabyte of text is cut into tokens", "answered before that is done")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": ["a" * 60_000] * 2}),
        ("/tokenize", {"prompt": "a" * 60_000}),
        ("/detokenize", {"tokens": [1] * 30_000}),
    ],
)
def test_long_texts_keep_nobody_waiting(served, models, monkeypatch, path, body):
    """The tokenizer waits until health was told: on the thread of the handlers it would wait for ever."""
    begun, told, tokenizer = threading.Event(), threading.Event(), type(next(iter(models)).loaded.tokenizer)

    def patient(method):
        def call(self, text):
            begun.set()
            assert told.wait(60)
            return method(self, text)

        return call

    for name in ("encode", "decode"):
        monkeypatch.setattr(tokenizer, name, patient(getattr(tokenizer, name)))
    url = f"http://127.0.0.1:{served.address[1]}"
    answers = []
    asking = threading.Thread(target=lambda: answers.append(httpx.post(url + path, json=body, timeout=60)))
    asking.start()
    assert begun.wait(60)
    assert httpx.get(f"{url}/livez", timeout=10).status_code == 200
    assert answers == []
    told.set()
    asking.join()
    assert answers[0].status_code in (200, 400)
    served.is_well()


@pytest.mark.fault(
    "F2", "a client goes away while its prompt waits or is read", "its slot is free before a token is drawn"
)
@pytest.mark.parametrize("n_requests", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_before_its_first_token(served, models, loop, monkeypatch, stream, n_requests):
    monkeypatch.setattr(
        engine_loop, "HEARTBEAT", 600.0
    )  # no sign of life is written, which would show that nobody is there
    engine = next(iter(models)).engine
    with monkeypatch.context() as patch:
        patch.setattr(engine, "tick", lambda only=None: time.sleep(0.01) or [])  # reads, and has nothing to tell yet
        body = json.dumps({"prompt": "a", "max_tokens": 9, "stream": stream}).encode()
        with socket.create_connection(served.address) as connection:
            connection.sendall(served.whole(body) * n_requests)
            _wait(lambda: loop.load == 1 and engine.busy)
        _wait(lambda: loop.load == 0 and not engine.busy)
    served.is_well()


@pytest.mark.fault(
    "F10",
    "a server that is stopped while texts do not end, and a client takes nothing",
    "they end when their time is over, and nothing is in the log",
)
@pytest.mark.parametrize("again", [False, True])
def test_texts_that_do_not_end_in_time(served, models, loop, monkeypatch, again):
    monkeypatch.setattr(start, "GRACE", 600.0 if again else 0.5)
    engine = next(iter(models)).engine
    monkeypatch.setattr(engine, "tick", lambda only=None: time.sleep(0.01) or [])
    with contextlib.ExitStack() as stack:
        for stream in (b"true", b"false") * 3:
            connection = stack.enter_context(socket.create_connection(served.address))
            connection.sendall(served.whole(b'{"prompt": "a", "max_tokens": 9, "stream": %s}' % stream))
        _wait(lambda: loop.load == 6)
        for _ in range(1 + again):  # Ctrl-C
            served.server.handle_exit(signal.SIGINT, None)
        served.thread.join(30)
        assert not served.thread.is_alive()
    assert loop.load == 0
    assert served.unhandled == []


def _wait(done, seconds=30):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)
