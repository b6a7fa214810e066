"""Answers that end when their client goes, and those that come as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from groundup.config.errors import UserError
from groundup.serving.completions import sse
from groundup.serving.errors import RequestError, as_request_error

DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def while_there(receive: Receive) -> AsyncIterator[None]:
    """Work for a client, which is cancelled when it goes.

    Args:
        receive: Where its going is told, once its request has been read.

    Raises:
        RequestError: It has gone.
    """
    work = asyncio.current_task()
    assert work is not None

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        work.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not watching.done():
            raise
        work.uncancel()
        raise RequestError(499, "the client has gone", code="client_gone") from None
    finally:
        watching.cancel()


class EventStream(Response):
    """Server-sent events, and [DONE] behind the last, until they end or the client goes.

    Starlette's response for streams gives each a group of two tasks, and takes twice as long.

    Args:
        events: Each with the empty line behind it. What fails before the first is refused with a status of its own;
            what fails later is an event, too.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events, self.status_code = events, 200
        self.init_headers({"content-type": "text/event-stream; charset=utf-8"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        begun, end = False, DONE
        try:
            async with while_there(receive), aclosing(self._events):
                async for event in self._events:
                    if not begun:
                        start = {"status": self.status_code, "headers": self.raw_headers}
                        await send({"type": "http.response.start", **start})
                        begun = True
                    await send({"type": "http.response.body", "body": event, "more_body": True})
        except (RequestError, UserError) as error:
            if not begun:
                raise
            end = sse(as_request_error(error).body()) + DONE
        await send({"type": "http.response.body", "body": end})
