"""A real socket, and clients that send nothing, little, or too much."""

import contextlib
import json
import socket
import threading
import time

import httpx
import pytest

from groundup.generation.requests import Event
from groundup.generation.scores import Score
from groundup.playground import start
from groundup.serving import bodies
from groundup.serving import connection as limits
from groundup.serving.access import Access
from groundup.serving.app import Server, build_app


@pytest.fixture
def address(models, loop):
    """Of a server; a test that is about its patience makes it short."""
    listener = socket.create_server(("127.0.0.1", 0))
    name = f"127.0.0.1:{listener.getsockname()[1]}"
    app = build_app(Server(models, loop), Access(hosts=frozenset({name}), key=None, page_paths=frozenset()))
    server = start.http_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join()


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def answer_to(address, *pieces, pause=0.1):
    """All that the server sends until it closes."""
    with socket.create_connection(address, timeout=60) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause)
        told = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(4096):
                told += data
        return told


@pytest.mark.fault("F6", "a head that comes byte by byte, or not at all", "the connection is closed, no other one")
def test_a_head_that_does_not_come(address, monkeypatch):
    with httpx.Client(base_url=f"http://127.0.0.1:{address[1]}", timeout=60) as client:  # longer than a head has
        assert client.get("/livez").status_code == 200
        monkeypatch.setattr(limits, "HEAD_SECONDS", 0.5)
        for _ in range(8):
            time.sleep(0.1)
            assert client.get("/livez").status_code == 200
    assert answer_to(address) == b""
    assert answer_to(address, *[b"%c" % byte for byte in b"GET /livez HTTP/1.1\r\n"]) == b""


@pytest.mark.fault("F6", "a body that does not come", "408, and the connection is closed")
def test_a_body_that_does_not_come(address, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.5)
    told = answer_to(address, HEAD % address[1], b"Content-Length: 20\r\n\r\n", b'{"prompt"')
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"the body did not come" in told
    noted = answer_to(address, HEAD % address[1], CHUNKED, b"5;", *[b"a" * 10_000] * 20, pause=0.05)
    assert noted.startswith(b"HTTP/1.1 408 ")  # a chunk's size, and a note behind it that has no end


@pytest.mark.fault("F6", "a head of more than 16 KiB, a body of more than 1 MiB", "refused while it comes")
def test_too_much(address, monkeypatch):
    assert b" 400 " in answer_to(address, HEAD % address[1], b"X: " + b"a" * 70_000).partition(b"\r\n")[0]
    chunk = b"%x\r\n" % (1 << 18) + b"a" * (1 << 18) + b"\r\n"
    with socket.create_connection(address, timeout=60) as connection:
        for piece in (HEAD % address[1], CHUNKED, *[chunk] * 5):
            connection.sendall(piece)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
        monkeypatch.setattr(limits, "HEAD_SECONDS", 0.5)  # the rest of the body never comes
        with contextlib.suppress(ConnectionError):
            while connection.recv(4096):
                pass


@pytest.mark.fault("F6", "a client that stops reading its stream", "given up, and its places are free")
def test_a_reader_that_stops(address, models, loop, monkeypatch):
    """Its texts never end by themselves."""
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.5)
    engine, numbers = next(iter(models)).engine, []
    submit = engine.submit

    def tick(only=None):
        time.sleep(0.001)
        return [Event(request=numbers[0], choice=0, token=1, score=Score(-1.0, 0.0, ((1, -1.0),)))] * 50

    monkeypatch.setattr(engine, "submit", lambda request: numbers.append(submit(request)) or numbers[-1])
    monkeypatch.setattr(engine, "tick", tick)
    body = json.dumps({"prompt": "a", "max_tokens": 9, "stream": True, "logprobs": 20}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 12)
        connection.connect(address)
        connection.sendall(HEAD % address[1] + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert connection.recv(1 << 12).startswith(b"HTTP/1.1 200 ")
        assert len(numbers) == 1
        deadline = time.monotonic() + 60
        while loop.load:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.fault("F6", "a client that reads its answer slowly, for longer than one that stops has", "it gets it all")
def test_a_slow_reader(address, models, monkeypatch):
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.5)
    body = json.dumps({"prompt": "ab" * 450_000, "return_token_strs": True}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.connect(address)
        more = b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall((HEAD % address[1]).replace(b"/v1/completions", b"/tokenize") + more + body)
        told, until = b"", time.monotonic() + 1.5
        while data := connection.recv(1 << 15):
            told += data
            if time.monotonic() < until:
                time.sleep(0.03)
    assert len(json.loads(told.partition(b"\r\n\r\n")[2])["tokens"]) == 900_000
