"""From folders to a running server, and to its end."""

import asyncio
import functools
import logging
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from groundup.playground import looking, offers, parts
from groundup.playground.analysis import Analyses
from groundup.playground.openapi import QUERIES, show_openapi
from groundup.playground.trainings import Trainings
from groundup.runtime.stored import Weights
from groundup.runtime.threads import FollowCores
from groundup.serving.access import Access
from groundup.serving.app import Server, build_app
from groundup.serving.bodies import check_words
from groundup.serving.connection import Connection
from groundup.serving.loop import EngineLoop
from groundup.serving.models import Models
from groundup.serving.page import page_files, page_routes
from groundup.terminal.ended import Ended

GRACE = 30
"""Seconds that texts have to end when the server is stopped; new ones are refused meanwhile."""
EVERY = 0.1
"""Seconds between two looks at all connections, as uvicorn has it."""
REST = 2
"""Seconds for what goes on when all connections are closed."""


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
        http=Connection,
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


class _Server(uvicorn.Server):
    """Tells when it answers, ends quietly with Ctrl-C, and ten times a second ends connections that take too long."""

    answering: Callable[[], None] = staticmethod(lambda: None)
    _looked = 0.0
    """When it last looked at its connections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self.answering()

    async def on_tick(self, counter: int) -> bool:
        """What is due: one look at all connections costs less than a timer for each request."""
        self._end_late()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let texts end; after GRACE seconds, or at a second Ctrl-C, end them as if their clients had gone.

        Uvicorn would cancel them, and log a traceback of each.
        """
        ending = asyncio.ensure_future(super().shutdown(sockets))
        last = time.monotonic() + GRACE
        while not (ending.done() or self.force_exit or time.monotonic() > last):
            self._end_late()
            await asyncio.wait([ending], timeout=EVERY)
        self.force_exit = True
        for connection in tuple(self.server_state.connections):
            cast("Connection", connection).transport.abort()
        await ending
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=REST)
        if self.server_state.tasks:  # nobody waits for these: they are canceled, which is no fault to be logged
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    def _end_late(self) -> None:
        """Look at all connections. Time in which this process was busy or stopped is not their clients'."""
        now = time.monotonic()
        seconds, self._looked = min(now - self._looked, 2 * EVERY), now
        for connection in tuple(self.server_state.connections):
            cast("Connection", connection).end_if_late(seconds)
