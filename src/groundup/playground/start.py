"""From folders to a running server, and to its end."""

import asyncio
import functools
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, cast

import h11
import torch
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from groundup.playground import looking, offers, parts
from groundup.playground.analysis import Analyses
from groundup.playground.openapi import QUERIES, show_openapi
from groundup.playground.trainings import Trainings
from groundup.runtime.stored import Weights
from groundup.runtime.threads import FollowCores
from groundup.serving.access import Access
from groundup.serving.app import Server, build_app
from groundup.serving.bodies import check_words
from groundup.serving.errors import RequestError
from groundup.serving.loop import EngineLoop
from groundup.serving.models import Models
from groundup.serving.page import page_files, page_routes
from groundup.terminal.ended import Ended

GRACE = 30
"""Seconds that texts have to end when the server is stopped; new ones are refused meanwhile."""
HEAD_BYTES = 16 << 10
HEAD_SECONDS = 30.0
"""For the head of a request to come, and for the rest of a body that was answered early; then it is closed."""
CONNECTIONS = 512
FULL = RequestError(
    503,
    f"{CONNECTIONS} connections are open, which is the most: close some, or try again later",
    code="too_many_connections",
    headers={"connection": "close", "retry-after": "1"},
)


def serve(
    paths: Sequence[Path],
    listener: socket.socket,
    *,
    hosts: frozenset[str] | None,
    key: str | None,
    threads: int,
    weights: Weights | Literal["saved", "auto"],
    say: Callable[[str], None],
    started: Callable[[Sequence[str]], None],
) -> int:
    """Serve models until a signal ends it.

    Args:
        paths: Runs, checkpoints or model folders.
        listener: A socket that listens.
        hosts: Values of Host that are ours; None takes any.
        key: What clients must send; None asks for nothing.
        threads: Of PyTorch; 0 takes its choice, and fewer while other programs want the cores.
        weights: How matrices are stored, as in `load_model`.
        say: Called with lines that a person should read about that.
        started: Called with the ids of the models when requests are answered.

    Raises:
        UserError: A folder holds no model, or a damaged one.
    """
    if threads:
        torch.set_num_threads(threads)
    models = Models(paths, weights=weights, say=say)
    loop = EngineLoop() if threads else EngineLoop(before_ticks=FollowCores())
    files = page_files()
    shared = Server(models, loop)
    trainings = Trainings(shared)
    access = Access(hosts=hosts, key=key, page_paths=frozenset(files))
    app = build_app(shared, access, more=[*page_api(shared, trainings), *page_routes(files)])
    server = http_server(app)
    server.answering = lambda: started([served.id for served in models])
    try:
        server.run(sockets=[listener])
    except (KeyboardInterrupt, Ended):  # how a server is meant to end
        pass
    finally:
        loop.close()
        trainings.close()
    return 0


def http_server(app: ASGIApp) -> "_Server":
    """The HTTP side: what connections may take, and how they end."""
    config = uvicorn.Config(
        app,
        log_level="error",  # clients get their errors as answers; a log of them would only grow
        access_log=False,  # prompts and paths are private
        server_header=False,
        proxy_headers=False,  # nobody here asks where a client is
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=GRACE,
        http=_Protocol,
        ws="none",
        lifespan="off",
    )
    return _Server(config)


def page_api(server: Server, trainings: Trainings) -> list[Route]:
    """The paths that the page asks, below /api, and the description of all that take a body."""
    analyses = Analyses(server)
    asked = [*offers.routes(server), *looking.routes(analyses), *parts.routes(analyses), *trainings.routes()]
    return [*map(_with_known_words, asked), Route("/openapi.json", show_openapi)]


def _with_known_words(route: Route) -> Route:
    """The same route, but what may follow the question mark is what the description names, each once."""

    @functools.wraps(route.endpoint)
    async def handler(request: Request) -> Response:
        known = QUERIES.get(route.path, ()) if request.method in ("GET", "HEAD") else ()
        check_words(request, known)
        return cast("Response", await route.endpoint(request))

    return Route(route.path, handler, methods=list(route.methods or ()), name=route.name)


class _Protocol(H11Protocol):
    """Closes connections on which a head, or the rest of a body answered early, does not come: each takes a place."""

    late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head; a connection beyond the limit is refused, and no other one."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self.app = FULL.response()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on; a head may come byte by byte, but within its time."""
        before = self.conn.their_state
        if before is h11.IDLE:
            self._wait()
        super().data_received(data)
        if self.conn.their_state is not before:
            self._wait_no_longer()

    def on_response_complete(self) -> None:
        """Wait for what is left of a body that was answered before its end."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Tell a client that it sends no HTTP, in the form of all our errors; only end an answer that has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            error = RequestError(400, msg, code="not_http", headers={"connection": "close"}).response()
            for event in (
                h11.Response(status_code=400, headers=error.raw_headers, reason=b"Bad Request"),
                h11.Data(data=bytes(error.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self._wait_no_longer()

    def _wait(self) -> None:
        if self.late is None:
            self.late = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _wait_no_longer(self) -> None:
        if self.late is not None:
            self.late.cancel()
            self.late = None


class _Server(uvicorn.Server):
    """Tells when it answers, and ends quietly with Ctrl-C."""

    answering: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self.answering()
