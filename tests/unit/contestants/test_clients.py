import contextlib
import json
import socket
import threading

import pytest

from groundup.config.errors import UserError
from groundup.contestants.clients import Load, _chunks, _events, ask

LOAD = Load(vocab_size=50, requests=2, prompt_tokens=3, new_tokens=2)
EVENTS = [
    {"choices": [{"text": "é"}]},
    {"choices": [{"text": "b"}]},
    {"choices": [], "usage": {"completion_tokens": 3}},
]


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer():
    """Two events in one chunk, one in two, a comment, and the end."""
    first, second, last = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS]
    pieces = [first + second, b": waiting\n\n" + last[:9], last[9:] + b"data: [DONE]\n\n", b""]
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(map(chunk, pieces))


@contextlib.contextmanager
def served(told):
    """The port of a server that tells every client the same and closes; and what it was asked."""
    asked = []

    def serve():
        while True:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(1 << 16))
                if not asked[-1]:
                    return
                connection.sendall(told)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            socket.create_connection(listener.getsockname()).close()
            thread.join()


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_found_however_an_answer_is_cut(size):
    data = answer()
    pieces = [(float(i), data[i : i + size]) for i in range(0, len(data), size)]
    told = list(_events(_chunks(pieces)))
    assert [event for _, event in told] == EVENTS
    times = [now for now, _ in told]
    assert times == sorted(times)
    assert times[0] == times[1]
    assert (times[1] < times[2]) == (size < 1000)


def test_every_client_asks_all_its_prompts_one_after_the_other():
    with served(answer()) as (port, asked):
        told = ask(port, 3, LOAD, seed=1)
        bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in asked]
    prompts = LOAD.prompts(3, 1)
    assert sorted(body["prompt"] for body in bodies) == sorted(prompt for each in prompts for prompt in each)
    assert told.tokens == 3 * 2 * 3
    assert (len(told.first), len(told.between)) == (6, 12)
    assert told.between.count(0.0) >= 6  # one of the three tokens came with another
    assert told.seconds > 0


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\nfull", "503 Service Unavailable full"),
        (b"nonsense\r\n\r\n", "nonsense"),
    ],
)
def test_a_refusal_is_told(told, reason):
    with served(told) as (port, _), pytest.raises(UserError, match="a client got no answer") as error:
        ask(port, 1, LOAD, seed=1)
    assert reason in str(error.value)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(UserError, match=r"a client got no answer: .*refused"):
        ask(port, 2, LOAD, seed=1)
