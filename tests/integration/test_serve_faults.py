"""Clients that are too many, vanish, or read slowly; a server that is stopped or killed: each as processes."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from forked import ForkedPopen, still_running
from groundup.checkpoint.model_folder import save_model
from groundup.config.model import GPTConfig
from groundup.model.gpt import GPT
from groundup.model.init import init_weights
from groundup.tokenizer.char import CharTokenizer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")


def saved(path, **shape):
    alphabet = CharTokenizer("\n abcdefghijklmnopqrstuvwxyz")
    config = GPTConfig(**shape, block_size=1024, vocab_size=alphabet.vocab_size)
    save_model(path, init_weights(GPT(config), seed=1), alphabet, {})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose texts take a while: long enough to be left in the middle."""
    return saved(tmp_path_factory.mktemp("models") / "slow", n_layer=4, n_head=4, n_embd=128)


class Served:
    def __init__(self, folder):
        self.process = ForkedPopen(
            [sys.executable, "-m", "groundup", "serve", str(folder), "--port=0", "--no-open", "--threads=1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+:\d+", line)[0]
        self.port = int(self.url.rpartition(":")[2])

    def get(self, path):
        return httpx.get(self.url + path, timeout=60)

    def post(self, body, timeout=120):
        return httpx.post(f"{self.url}/v1/completions", json=body, timeout=timeout)

    def load(self):
        return float(re.search(r"^groundup_load (\S+)", self.get("/metrics").text, re.MULTILINE)[1])

    def idle(self, seconds=60):
        deadline = time.monotonic() + seconds
        while self.load():
            assert time.monotonic() < deadline, "texts of clients that have gone are still being written"
            time.sleep(0.05)

    def raw(self, body):
        """A connection on which a completion was asked for, with little room for what comes back."""
        data = json.dumps(body).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
        connection = socket.socket()
        connection.settimeout(120)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return connection

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def shared(folder):
    """For tests that leave it as it was."""
    served = Served(folder)
    yield served
    served.end()


@pytest.fixture
def server(folder):
    served = Served(folder)
    yield served
    served.end()


@pytest.mark.fault("F1", "ten times more texts than the queue holds", "429 and Retry-After for those; no other error")
def test_more_than_fits_is_refused_at_once(shared, record_property):
    body = {"prompt": "a", "max_tokens": 10, "n": 8, "temperature": 0}
    with contextlib.ExitStack() as stack:
        shared.process.send_signal(signal.SIGSTOP)  # it finds all of them waiting, however slowly they come
        try:
            connections = [stack.enter_context(shared.raw(body)) for _ in range(80)]
        finally:
            shared.process.send_signal(signal.SIGCONT)
        answers = [answer_on(connection) for connection in connections]
    refused = [answer for answer, _ in answers if answer.status == 429]
    assert {answer.status for answer, _ in answers} == {200, 429}
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    assert len({json.loads(said)["choices"][0]["text"] for answer, said in answers if answer.status == 200}) == 1
    shared.idle()
    record_property("figure", f"{len(refused)} of {len(answers)} refused")


def answer_on(connection):
    """The head and the body of an answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer, answer.read()


@pytest.mark.fault(
    "F2", "200 clients go away in the middle of their texts", "the slots are free; the next client is answered"
)
def test_clients_that_vanish(shared):
    for i in range(200):
        with shared.raw({"prompt": "a", "max_tokens": 900, "stream": i % 2 == 0}) as connection:
            if i % 2 == 0:
                connection.recv(1)
    while (answer := shared.post({"prompt": "a", "max_tokens": 2})).status_code == 429:
        time.sleep(0.05)
    assert answer.status_code == 200
    shared.idle()


@pytest.mark.fault("F2", "clients read nothing of their streams", "others are answered; they get all when they read")
def test_readers_that_sleep(shared):
    body = {"prompt": "a", "max_tokens": 300, "stream": True, "logprobs": 20, "temperature": 1}
    with contextlib.ExitStack() as stack:
        sleepers = [stack.enter_context(shared.raw(body | {"seed": seed})) for seed in range(2)]
        for _ in range(3):
            assert shared.post({"prompt": "b", "max_tokens": 5}).status_code == 200
        for seed, connection in enumerate(sleepers):
            _, said = answer_on(connection)
            events = [line[6:] for line in said.split(b"\n\n") if line.startswith(b"data: {")]
            text = "".join(choice["text"] for event in map(json.loads, events) for choice in event["choices"])
            assert len(text) == 300
            whole = shared.post(body | {"seed": seed, "stream": False})
            assert text == whole.json()["choices"][0]["text"]


@pytest.mark.fault("F6", "300 connections that send a part of a request", "others are answered")
def test_half_requests(shared):
    pieces = [b"", b"GET / HT", b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1"]
    with contextlib.ExitStack() as stack:
        for i in range(300):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", shared.port), timeout=30))
            connection.sendall(pieces[i % 3])
        for _ in range(10):
            assert shared.get("/livez").status_code == 200
        assert shared.post({"prompt": "a", "max_tokens": 2}).status_code == 200


@pytest.mark.fault("F9", "health is asked while every slot reads long prompts", "answered, past the queue")
def test_health_under_load(shared):
    stop = threading.Event()

    def work():
        while not stop.is_set():
            shared.post({"prompt": "a" * 600, "max_tokens": 20, "n": 4})

    with ThreadPoolExecutor(6) as pool:
        for _ in range(6):
            pool.submit(work)
        try:
            while not shared.load():
                time.sleep(0.01)
            for _ in range(20):
                assert shared.get("/readyz").status_code == shared.get("/livez").status_code == 200
            assert shared.load() > 0
        finally:
            stop.set()
    shared.idle()


@pytest.mark.fault(
    "F10", "SIGTERM while texts are written", "they end with their reason, nobody new is taken, and the server ends"
)
def test_a_stop_lets_texts_end_and_logs_tell_nothing(server):
    body = {"prompt": "secret\n", "max_tokens": 300, "stream": True, "n": 4, "temperature": 1, "seed": 3}
    ends = []
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=120) as answer:
        lines = answer.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        with contextlib.suppress(httpx.TransportError):
            while server.get("/readyz").status_code == 200:
                assert time.monotonic() < deadline
        for line in lines:
            if line.startswith("data: {"):
                ends += [c["finish_reason"] for c in json.loads(line[6:])["choices"] if c["finish_reason"]]
    assert ends == ["length"] * 4
    output, errors = server.process.communicate(timeout=60)
    assert (output, errors) == ("", "")


@pytest.mark.fault("F10", "a second Ctrl-C while texts are written", "the server ends at once, and tells nothing")
def test_a_second_interrupt(server):
    body = {"prompt": "a", "max_tokens": 1000, "n": 16, "temperature": 1, "logprobs": 5}
    with contextlib.ExitStack() as stack:
        for i in range(4):
            stack.enter_context(server.raw(body | {"stream": i % 2 == 0}))
        while server.load() < 64:
            time.sleep(0.01)
        for _ in range(2):
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        output, errors = server.process.communicate(timeout=20)
    assert (output, errors, server.process.returncode) == ("", "", 0)


@pytest.mark.fault("F17", "prompts and paths with control characters", "they are in no log")
def test_logs_tell_nothing(server):
    assert server.post({"prompt": "secret\n", "max_tokens": 2}).status_code == 200
    assert server.post({"prompt": "SECRET\x1b[31m"}).status_code == 400
    assert server.get("/secret%0a%1b[31mforged").status_code == 404
    server.process.send_signal(signal.SIGINT)
    output, errors = server.process.communicate(timeout=60)
    assert (output, errors, server.process.returncode) == ("", "", 0)


@pytest.mark.fault("F10", "the server ends, or is killed", "none of its processes is left")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_orphans(server, how):
    assert server.post({"prompt": "a", "max_tokens": 2}).status_code == 200
    children = psutil.Process(server.process.pid).children(recursive=True)
    server.process.send_signal(how)
    server.process.wait(timeout=60)
    assert not still_running(children)


@pytest.mark.fault(
    "F18",
    "minutes of streams, whole answers, analyses and clients that leave",
    "memory and open files stay as they are",
)
@pytest.mark.parametrize(
    ("seconds", "pause"),
    [(4, 0.0), pytest.param(600, 0.5, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
    ids=["fast", "ten minutes"],
)
def test_memory_is_flat(tmp_path, seconds, pause, record_property):
    """Of a small model, which answers more requests per second than a larger one."""
    server = Served(saved(tmp_path / "small", n_layer=1, n_head=1, n_embd=32))
    try:
        _watch_memory(server, seconds, pause, record_property)
    finally:
        server.end()


def _watch_memory(server, seconds, pause, record_property):
    process = psutil.Process(server.process.pid)
    over, counts = threading.Event(), [0] * 6

    def work(number):
        while not over.is_set():
            body = {"prompt": "abc" * 20, "max_tokens": 20, "seed": counts[number], "stream": number == 1}
            if number == 2:
                with server.raw(body | {"stream": True, "max_tokens": 900}) as connection:
                    connection.recv(1)
            elif number == 3:
                answer = httpx.post(f"{server.url}/api/surprise", json={"text": "hello world"}, timeout=60)
                assert answer.status_code == 200
            else:
                assert server.post(body).status_code == 200
            counts[number] += 1
            over.wait(pause)

    sizes, files = [], []
    with ThreadPoolExecutor(6) as pool:
        working = [pool.submit(work, number) for number in range(6)]
        try:
            while not all(counts) and not any(each.done() for each in working):  # what is made once is made by then
                time.sleep(0.01)
            for _ in range(20):
                time.sleep(seconds / 20)
                sizes.append(process.memory_info().rss)
                files.append(process.num_fds())
        finally:
            over.set()
        for each in working:
            each.result()
    server.idle()
    early, late = max(sizes[5:10]), max(sizes[-5:])
    assert late - early < 8e6 + 1e3 * sum(counts), sizes  # 1 MB per 1,000 requests, and what an allocator keeps
    assert max(files[-5:]) < max(files[5:10]) + 10
    record_property("figure", f"{sum(counts):,} requests, {(late - early) / 1e6:+.1f} MB")
