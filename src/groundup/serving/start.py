"""From folders to a running server, and to its end."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import uvicorn

from groundup.serving.access import Access
from groundup.serving.app import build_app
from groundup.serving.looking import routes as looking_routes
from groundup.serving.loop import EngineLoop
from groundup.serving.models import open_models
from groundup.serving.page import page_files, page_routes

GRACE = 30
"""Seconds that texts have to end when the server is stopped; new ones are refused meanwhile."""
HEAD_BYTES = 16 << 10
CONNECTIONS = 512


def serve(
    paths: Sequence[Path],
    listener: socket.socket,
    *,
    hosts: frozenset[str],
    key: str | None,
    threads: int,
    started: Callable[[Sequence[str]], None],
) -> int:
    """Serve models until a signal ends it.

    Args:
        paths: Runs, checkpoints or model folders.
        listener: A socket that listens.
        hosts: Values of Host that are ours.
        key: What clients must send; None asks for nothing.
        threads: Of PyTorch; 0 takes its choice.
        started: Told the ids of the models when requests are answered.

    Raises:
        UserError: A folder holds no model, or a damaged one.
    """
    if threads:
        torch.set_num_threads(threads)
    models = open_models(paths)
    loop = EngineLoop({served.id: served.engine for served in models.values()})
    files = page_files()
    app = build_app(
        models,
        loop,
        Access(hosts=hosts, key=key, page_paths=frozenset(files)),
        more=lambda server: [*looking_routes(server), *page_routes(files)],
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # prompts and paths are nobody's business
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        http="h11",
        ws="none",
        lifespan="off",
    )
    server = _Server(config)
    server.told = lambda: started(list(models))
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:  # how a server is meant to end
        pass
    finally:
        loop.close()
    return 0


class _Server(uvicorn.Server):
    """Tells when it answers, and ends quietly with Ctrl-C."""

    told: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self.told()
