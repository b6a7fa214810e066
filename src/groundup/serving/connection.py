"""A connection, and what it may take: bytes and seconds for heads, seconds to read, and a place among all."""

import asyncio
import socket
from collections import deque
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from groundup.serving.errors import RequestError

HEAD_BYTES = 16 << 10
LONG_HEAD = f"the head of a request may have {HEAD_BYTES:,} bytes"
HEAD_SECONDS = 30.0
"""For the head of a request to come, and for the rest of a body that was answered early; then it is closed."""
SEND_SECONDS = 30.0
"""For a client to take a part of what waits to be sent; then the connection is closed, and its texts end."""
SEND_BYTES = 128 << 10
"""Of an answer, that the system keeps: with the megabytes it would take, it is long unknown whether any are read."""
PIPELINED = 64
"""Requests that one connection may send before the first of them is answered."""
CONNECTIONS = 512
FULL = RequestError(
    503,
    f"{CONNECTIONS} connections are open, which is the most: close some, or try again later",
    code="too_many_connections",
    headers={"connection": "close", "retry-after": "1"},
)


class Connection(HttpToolsProtocol):
    """Uvicorn's, with limits: it would keep a head of any size, and wait for one, or for a reader, without end."""

    _coming: Literal["head", "body"] | None = "head"
    """What of a request has begun, or must at once, and is not over."""
    _waited: float | None = None
    """Seconds that ran for what is to come, while they run."""
    _untaken, _idle = 0, 0.0
    """Bytes that wait to be sent, and seconds in which they did not grow fewer."""
    _head_bytes = 0
    _fault = ""
    """What is wrong with a request, where the parser cannot know."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unanswered: deque[RequestResponseCycle] = deque()
        """Requests in their order: the first is being answered, and `cycle` is the last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head; a connection beyond the limit is refused, and no other one."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if len(self.connections) > CONNECTIONS:
            self.app = FULL.response()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read on; a head may come byte by byte, but within its time."""
        self._coming = self._coming or "head"
        if self._coming == "head":
            self._head_bytes += len(data)
        super().data_received(data)
        if self._coming == "head" and self._head_bytes > HEAD_BYTES:
            self.send_400_response(LONG_HEAD)
        self._watch()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._coming = "head"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header; what stands behind a body in chunks is none, and the spaces around a value are not of it."""
        if self._coming == "head":
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        """Answer, or refuse what came in one piece and is too much, or means another server."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._fault = LONG_HEAD
        elif len(self._unanswered) > PIPELINED:
            self._fault = f"at most {PIPELINED} requests may wait for an answer on one connection"
        elif not self.url.startswith(b"/"):
            self._fault = "what is asked for must be a path of this server, and begin with /"
        if self._fault:
            raise ValueError(self._fault)  # the parser stops, and calls it an error of its own
        self._coming, self._head_bytes = "body", 0
        super().on_headers_complete()
        self._unanswered.append(self.cycle)

    def on_message_complete(self) -> None:
        """All of a request is here."""
        self._coming = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for what is left of a body that was answered before its end."""
        self._unanswered.popleft()
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Tell a client that it sends no HTTP, in the form of all our errors; only end an answer that has begun."""
        if not (self._unanswered and self._unanswered[0].response_started):
            error = RequestError(400, self._fault or msg, code="not_http", headers={"connection": "close"}).response()
            headers = b"".join(b"%s: %s\r\n" % header for header in error.raw_headers)
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\n%s\r\n%s" % (headers, error.body))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, also for whom uvicorn does not tell: it knows the last request alone."""
        super().connection_lost(exc)
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self._coming = None
        self._watch()

    def _watch(self) -> None:
        """Let time run while something of a request is to come and nothing is being answered."""
        if not self._coming or self._unanswered:
            self._waited = None
        elif self._waited is None:
            self._waited = 0.0

    def end_if_late(self, seconds: float) -> None:
        """Close it, if what is to come took too long, or nothing is taken of what waits to be sent.

        Args:
            seconds: Since the last look, without those in which nobody could look.
        """
        before, self._untaken = self._untaken, self.transport.get_write_buffer_size()
        grows = bool(self._unanswered) and not self.flow.write_paused  # by more, perhaps, than is taken
        # What did not wait at the last look may be a moment old: a long answer is made while nobody looks.
        takes = grows or not before or self._untaken < before
        self._idle = 0.0 if takes else self._idle + seconds
        if self._waited is not None:
            self._waited += seconds
        if self._idle > SEND_SECONDS or (self._waited or 0.0) > HEAD_SECONDS:
            self.transport.abort()
