"""What counts of the time in which a client takes or sends nothing: looks of the server, and no more."""

import asyncio
import socket

import pytest

from groundup.playground import start
from groundup.serving import connection as limits


class Transport:
    """To a client that takes nothing by itself."""

    def __init__(self, end):
        self.end, self.waiting, self.aborted = end, 0, False

    def get_extra_info(self, name):
        return self.end if name == "socket" else None

    def get_write_buffer_size(self):
        return self.waiting

    def abort(self):
        self.aborted = True


class Watched:
    """A connection, and looks at it by a server whose clock is ours."""

    def __init__(self, monkeypatch, loop, end):
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)
        self.server = start.http_server(lambda *_: None)
        self.server.config.load()
        self.transport = Transport(end)
        self.connection = limits.Connection(self.server.config, self.server.server_state, {}, loop)
        self.connection.connection_made(self.transport)

    def look(self, after=0.1):
        self.now += after
        self.server._end_late()
        return self.transport.aborted


@pytest.fixture
def watched(monkeypatch):
    loop, pair = asyncio.new_event_loop(), socket.socketpair()
    yield Watched(monkeypatch, loop, pair[0])
    loop.close()
    for end in pair:
        end.close()


@pytest.fixture
def answered(watched):
    """Nothing is to come of its client."""
    watched.connection._coming = None
    watched.connection._watch()
    return watched


def test_the_time_before_an_answer_is_not_its_clients(answered, monkeypatch):
    """No look came while the answer was made: at the next one all of it waits."""
    monkeypatch.setattr(limits, "SEND_SECONDS", 0.15)
    assert not answered.look()
    answered.transport.waiting = 1 << 20
    assert not answered.look(after=1)
    assert not answered.look()


@pytest.mark.fault("F6", "the server is stopped for a while (Ctrl-Z, a paused machine)", "its clients keep their place")
def test_time_in_which_the_server_stands_still_does_not_count(watched):
    """A head is to come, and bytes wait."""
    watched.transport.waiting = 1 << 20
    assert not watched.look()
    assert not watched.look(after=2 * limits.SEND_SECONDS + 2 * limits.HEAD_SECONDS)
    assert not watched.look()


def test_a_client_that_takes_nothing_is_given_up(answered):
    answered.transport.waiting = 1 << 20
    answered.look()
    looks = round(limits.SEND_SECONDS / 0.1)
    assert not any(answered.look() for _ in range(looks - 1))
    answered.transport.waiting -= 1  # takes a little, and has its time again
    assert not any(answered.look() for _ in range(looks - 1))
    assert any(answered.look() for _ in range(3))


def test_a_head_that_does_not_come_is_given_up(watched):
    looks = round(limits.HEAD_SECONDS / 0.1)
    assert not any(watched.look() for _ in range(looks - 2))
    assert any(watched.look() for _ in range(4))
