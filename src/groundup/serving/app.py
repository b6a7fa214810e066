"""Routes of the server. Handlers are thin: check, ask the engine's thread, answer."""

import time
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from groundup.config.errors import UserError
from groundup.serving.access import SECURITY_HEADERS, Access
from groundup.serving.bodies import CompletionBody, DetokenizeBody, TokenizeBody, check_words, read_body
from groundup.serving.completions import Completion
from groundup.serving.errors import RequestError, as_request_error
from groundup.serving.loop import EngineLoop
from groundup.serving.meters import Meters
from groundup.serving.models import Models
from groundup.serving.streams import EventStream, while_there
from groundup.serving.texts import TokenNames
from groundup.tokenizer.base import END_OF_TEXT

ADDED_HEADERS = [(k.encode(), v.encode()) for k, v in (SECURITY_HEADERS | {"cache-control": "no-store"}).items()]
NO_CHAT = (
    "this is a base model: it continues text and knows no chat format. Use /v1/completions, with the whole text so far"
    " as the prompt"
)


class Server:
    """What the handlers share.

    Args:
        models: What is offered.
        loop: The thread that computes.
    """

    def __init__(self, models: Models, loop: EngineLoop) -> None:
        self.models, self.loop, self.meters = models, loop, Meters(loop)

    def routes(self) -> list[Route]:
        """Every path that is answered, besides the page's."""
        return [
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.list_models),
            Route("/v1/models/{id:path}", self.show_model),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/tokenizer_info", self.tokenizer_info),
            Route("/livez", self.live),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics),
        ]

    async def completions(self, request: Request) -> Response:
        """Continue text."""
        started = time.perf_counter()
        body = await read_body(request, CompletionBody)
        self.loop.check_room(body.n or 1)
        served = await self.models.find(body.model)
        completion = await body.aside(lambda: Completion(served, body))
        if body.stream:
            return EventStream(completion.events(self.loop, lambda: self._count_stream(completion, started)))
        async with while_there(request.receive):
            answer = await completion.whole(self.loop)
        self._count(answer["usage"])
        return JSONResponse(answer)

    async def chat(self, _request: Request) -> Response:
        """Refused, with a pointer."""
        raise RequestError(400, NO_CHAT, code="no_chat_template")

    async def list_models(self, _request: Request) -> Response:
        """All models."""
        return JSONResponse({"object": "list", "data": [served.facts() for served in self.models]})

    async def show_model(self, request: Request) -> Response:
        """One of them."""
        return JSONResponse((await self.models.find(request.path_params["id"])).facts())

    async def tokenize(self, request: Request) -> Response:
        """Text to ids."""
        body = await read_body(request, TokenizeBody)
        served = await self.models.find(body.model)

        def work() -> dict[str, Any]:
            tokenizer = served.loaded.tokenizer
            if body.prompt == END_OF_TEXT and tokenizer.eot_id is not None:  # how lm_eval asks for the id of eos_token
                ids = [tokenizer.eot_id]
            else:
                ids = served.prompt_ids(body.prompt) if body.add_special_tokens else tokenizer.encode(body.prompt)
            answer = {"tokens": ids, "count": len(ids), "max_model_len": served.context}
            if body.return_token_strs:
                names = TokenNames(tokenizer, as_ids=False)
                answer["token_strs"] = [names(i) for i in ids]
            return answer

        return JSONResponse(await body.aside(work))

    async def detokenize(self, request: Request) -> Response:
        """Ids to text."""
        body = await read_body(request, DetokenizeBody)
        tokenizer = (await self.models.find(body.model)).loaded.tokenizer
        return JSONResponse({"prompt": await body.aside(lambda: tokenizer.decode(body.tokens))})

    async def tokenizer_info(self, request: Request) -> Response:
        """What a client must know to use ids."""
        check_words(request, ("model",))
        tokenizer = (await self.models.find(request.query_params.get("model"))).loaded.tokenizer
        eos = None if tokenizer.eot_id is None else END_OF_TEXT
        return JSONResponse(
            {
                "vocab_size": tokenizer.vocab_size,
                "eos_token": eos,
                "eos_token_id": tokenizer.eot_id,
                "bos_token": eos,
                "chat_template": None,
            }
        )

    async def live(self, _request: Request) -> Response:
        """The process answers."""
        return PlainTextResponse("alive\n")

    async def ready(self, _request: Request) -> Response:
        """Requests are taken."""
        return PlainTextResponse("ready\n") if self.loop.ready else PlainTextResponse("not ready\n", 503)

    async def metrics(self, _request: Request) -> Response:
        """For Prometheus."""
        return Response(self.meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _count_stream(self, completion: Completion, started: float) -> None:
        if completion.first_told is not None:
            self.meters.first_token.observe(completion.first_told - started)
        self._count(completion.usage())

    def _count(self, usage: dict[str, Any]) -> None:
        self.meters.prompt_tokens.inc(usage["prompt_tokens"])
        self.meters.cached_tokens.inc(usage["prompt_tokens_details"]["cached_tokens"])
        self.meters.drawn_tokens.inc(usage["completion_tokens"])


async def _answer_error(_request: Request, error: Exception) -> Response:
    return as_request_error(error).response()


async def _answer_http(_request: Request, error: Exception) -> Response:
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    known = {
        404: ("there is nothing at this path", "not_found"),
        405: ("this path takes another method", "wrong_method"),
    }
    message, code = known.get(status, ("the request cannot be answered", "not_answered"))
    return RequestError(status, message, code=code, headers=dict(headers or {})).response()  # with Allow


async def _answer_fault(_request: Request, error: Exception) -> Response:
    return RequestError(500, f"our own fault: {type(error).__name__}", code="internal").response()


class _Gate:
    """Checks every request before its body is read, counts answers, and adds the security headers."""

    def __init__(self, app: ASGIApp, access: Access, meters: Meters) -> None:
        self.app, self.access, self.meters = app, access, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.meters.requests.labels(str(message["status"])).inc()
                known = {name for name, _ in message["headers"]}
                more = [(name, value) for name, value in ADDED_HEADERS if name not in known]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            self.access.check(scope["method"], scope["path"], headers)
        except RequestError as error:
            await error.response()(scope, receive, send_safely)
            return
        await self.app(scope, receive, send_safely)


def build_app(server: Server, access: Access, *, more: Sequence[Route] = ()) -> ASGIApp:
    """The whole application.

    Args:
        server: What the handlers share.
        access: Who may talk to it.
        more: Routes beside the API's: the page and its analyses.
    """
    app = Starlette(
        routes=[*server.routes(), *more],
        exception_handlers={
            RequestError: _answer_error,
            UserError: _answer_error,
            HTTPException: _answer_http,
            Exception: _answer_fault,
        },
    )
    return _Gate(app, access, server.meters)
