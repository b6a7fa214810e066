"""Clients that ask a server for completions, all at once, and what they see.

Each asks one streamed completion after the other. One thread of this process plays all of them and only notes what
comes and when, so that little of what a server seems to cost is theirs.
"""

import json
import selectors
import socket
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch

from groundup.config.errors import UserError

SECONDS = 300
"""After which a client gives up."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What every client asks: temperature 0.8, top-k 50, prompts of random ids that share nothing."""

    vocab_size: int
    requests: int
    """Completions of each client, one after the other."""
    prompt_tokens: int
    new_tokens: int

    def prompts(self, n_clients: int, seed: int) -> list[list[list[int]]]:
        """Ids, by client and request; of other clients others, so that no server has read one before."""
        shape = (n_clients, self.requests, self.prompt_tokens)
        generator = torch.Generator().manual_seed(1000 * seed + n_clients)
        return torch.randint(self.vocab_size, shape, generator=generator).tolist()


@dataclass(slots=True)
class Answers:
    """What clients saw."""

    first: list[float] = field(default_factory=list)
    """Seconds until the first event of each stream."""
    between: list[float] = field(default_factory=list)
    """Seconds between two tokens: 0 where one event brings both."""
    tokens: int = 0
    seconds: float = 0.0

    def add(self, other: "Answers") -> None:
        """Those of another client, or of another turn."""
        self.first += other.first
        self.between += other.between
        self.tokens, self.seconds = self.tokens + other.tokens, self.seconds + other.seconds

    def figures(self) -> dict[str, float]:
        """Tokens per second of all clients together, and milliseconds."""
        row = {"tokens_per_sec": round(self.tokens / self.seconds, 1)}
        for name, values in (("first_token", self.first), ("between_tokens", self.between)):
            if values:
                row[f"{name}_p50_ms"] = round(1e3 * statistics.median(values), 2)
                row[f"{name}_p99_ms"] = round(1e3 * sorted(values)[min(len(values) - 1, int(0.99 * len(values)))], 2)
        return row


@dataclass(slots=True)
class _Stream:
    """An answer on its way: what came, and when."""

    connection: socket.socket
    to_ask: Iterator[bytes]
    """What the client asks next."""
    start: float
    pieces: list[tuple[float, bytes]] = field(default_factory=list)


def ask(port: int, n_clients: int, load: Load, *, seed: int, more: Mapping[str, Any] | None = None) -> Answers:
    """Let clients ask a server at once.

    Args:
        port: Of the server, on this machine.
        n_clients: How many.
        load: What each asks.
        seed: Of the prompts.
        more: Fields of the request that only this server knows.

    Raises:
        UserError: One of them gets no answer.
    """
    clients = [
        [_request(port, {"prompt": prompt, "max_tokens": load.new_tokens} | dict(more or {})) for prompt in asked]
        for asked in load.prompts(n_clients, seed)
    ]
    total, over, start = Answers(), list[_Stream](), time.perf_counter()
    with selectors.DefaultSelector() as going:
        try:
            for requests in clients:
                _begin(going, port, iter(requests))
            while going.get_map():
                for key, _ in going.select(SECONDS) or _nobody_answers():
                    stream: _Stream = key.data
                    data = stream.connection.recv(1 << 16)
                    stream.pieces.append((time.perf_counter(), data))
                    if not data:
                        going.unregister(stream.connection)
                        stream.connection.close()
                        over.append(stream)
                        _begin(going, port, stream.to_ask)
            total.seconds = time.perf_counter() - start
            for stream in over:
                _read(stream, total)
        except (OSError, ValueError) as error:
            raise UserError(f"a client got no answer: {error}") from None
        finally:
            for key in [*going.get_map().values()]:
                key.data.connection.close()
    return total


def _nobody_answers() -> NoReturn:
    raise TimeoutError(f"nothing came for {SECONDS} seconds")


def _request(port: int, asked: Mapping[str, Any]) -> bytes:
    """For one streamed completion of as many tokens as are asked for, whatever they are."""
    wanted = {
        **asked,
        "temperature": 0.8,
        "top_k": 50,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    body = json.dumps(wanted).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _begin(going: selectors.BaseSelector, port: int, to_ask: Iterator[bytes]) -> None:
    """A client's next request, if it has one."""
    if (request := next(to_ask, None)) is not None:
        start = time.perf_counter()
        connection = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        going.register(connection, selectors.EVENT_READ, _Stream(connection, to_ask, start))
        connection.sendall(request)


def _read(stream: _Stream, told: Answers) -> None:
    """What a client saw; read when all is over, as clients share the cores with the servers."""
    last, n_events, drawn = stream.start, 0, 0
    for now, event in _events(_chunks(stream.pieces)):
        drawn = (event.get("usage") or {}).get("completion_tokens", drawn)
        if event["choices"]:
            (told.between if n_events else told.first).append(now - last)
            last, n_events = now, n_events + 1
    told.between += [0.0] * (drawn - n_events)
    told.tokens += drawn


def _chunks(pieces: list[tuple[float, bytes]]) -> Iterator[tuple[float, bytes]]:
    """What the chunks of an answer carry, each with the time when it was complete."""
    answer = b"".join(data for _, data in pieces)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ValueError(" ".join(answer[:500].decode(errors="replace").split()) or "the connection was closed")
    rest, to_skip = b"", answer.index(b"\r\n\r\n") + 4
    for now, data in pieces:
        rest += data[to_skip:]
        to_skip = max(0, to_skip - len(data))
        while (at := rest.find(b"\r\n")) >= 0 and len(rest) >= at + (size := int(rest[:at], 16)) + 4:
            yield now, rest[at + 2 : at + 2 + size]
            rest = rest[at + size + 4 :]


def _events(pieces: Iterable[tuple[float, bytes]]) -> Iterator[tuple[float, Any]]:
    """The events of a stream with their times."""
    rest = b""
    for now, data in pieces:
        *events, rest = (rest + data).split(b"\n\n")
        yield from ((now, json.loads(event[6:])) for event in events if event.startswith(b"data: {"))
