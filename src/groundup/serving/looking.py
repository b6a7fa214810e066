"""What the page asks of a model: logits, attention, lens, surprise, ablation, heads, neighbors, runs.

Arrays that are large go as bytes and not as JSON: raw logits as float32, attention as uint16 in steps of 1 / 65535. All
of it is computed between two ticks of the engine's thread, one analysis at a time, on at most MAX_TOKENS tokens.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from groundup import __version__
from groundup.files.layout import folders_around
from groundup.inspection.ablation import Instead, importance, without
from groundup.inspection.contributions import contributions
from groundup.inspection.detectors import head_scores, labels
from groundup.inspection.lens import logit_lens
from groundup.inspection.neighbors import neighbors
from groundup.inspection.surprise import surprise
from groundup.inspection.trace import Trace, evaluating, trace
from groundup.model.bigram import Bigram
from groundup.records.history import is_finite, is_run, read_run
from groundup.serving.app import Server
from groundup.serving.bodies import Body, Id, read_body
from groundup.serving.errors import RequestError
from groundup.serving.models import Served, find
from groundup.serving.texts import TokenNames

MAX_TOKENS = 256
TOP = 10
STEPS = 65535


class TextBody(Body):
    """A text to look at: as text, or as ids."""

    model: str | None = None
    text: str | None = None
    tokens: list[Id] | None = None


class PositionBody(TextBody):
    """A place in it, and perhaps a token; negative positions count from the end."""

    position: int = -1
    token: Id | None = None


class LayerBody(TextBody):
    """A layer of it."""

    layer: Annotated[int, Field(ge=0)] = 0


class AblationBody(TextBody):
    """Parts that are off."""

    heads: list[list[int]] = Field(default_factory=list)
    mlps: list[int] = Field(default_factory=list)
    instead: Instead = "mean"


class Looking:
    """Handlers of the page's analyses.

    Args:
        server: Whose models are looked at.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._one_at_a_time = asyncio.Lock()

    async def facts(self, _request: Request) -> Response:
        """Version and models, for the page's head."""
        models = [
            {
                "id": served.id,
                "vocab_size": served.loaded.config.vocab_size,
                "context": served.context,
                "n_layer": getattr(served.loaded.config, "n_layer", 0),
                "n_head": getattr(served.loaded.config, "n_head", 0),
                "n_embd": getattr(served.loaded.config, "n_embd", 0),
                "info": served.loaded.info,
            }
            for served in self.server.models.values()
        ]
        return JSONResponse({"version": __version__, "models": models, "max_tokens": MAX_TOKENS})

    async def vocabulary(self, request: Request) -> Response:
        """The text of every id."""
        served = find(self.server.models, request.query_params.get("model"))
        names = TokenNames(served.loaded.tokenizer, as_ids=False)
        return JSONResponse({"tokens": [names(i) for i in range(served.loaded.config.vocab_size)]})

    async def tokens(self, request: Request) -> Response:
        """Text to ids with their text, cut at the end where it is longer than what is looked at."""
        body = await read_body(request, TextBody)
        served = find(self.server.models, body.model)
        ids = served.prompt_ids(body.text or "") if body.tokens is None else body.tokens
        names = TokenNames(served.loaded.tokenizer, as_ids=False)
        return JSONResponse({"tokens": ids, "texts": [names(i) for i in ids]})

    async def logits(self, request: Request) -> Response:
        """Raw logits of what comes next, float32, little-endian."""
        body = await read_body(request, TextBody)

        def work(served: Served, idx: Tensor) -> bytes:
            with torch.no_grad(), evaluating(served.loaded.model):
                model: Any = served.loaded.model
                return _bytes(model.logits(model.hidden(idx[None])[:, -1])[0].float())

        return Response(await self._on(body, work), media_type="application/octet-stream")

    async def attention(self, request: Request) -> Response:
        """Weights of all heads of a layer, then the lengths of their values: uint16 (H, T, T), float32 (H, T)."""
        body = await read_body(request, LayerBody)

        def work(served: Served, idx: Tensor) -> bytes:
            seen = _trace(served, idx)
            if body.layer >= len(seen.attention):
                raise RequestError(400, f"the model has layers 0 to {len(seen.attention) - 1}", param="layer")
            weights = (seen.attention[body.layer] * STEPS).round().to(torch.int32).to(torch.uint16)
            return _bytes(weights) + _bytes(seen.values[body.layer].norm(dim=-1).float())

        return Response(await self._on(body, work), media_type="application/octet-stream")

    async def lens(self, request: Request) -> Response:
        """Per layer and position: the likeliest token, its probability, entropy, and the rank of what really came."""
        body = await read_body(request, TextBody)

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            logp = logit_lens(served.loaded.model, _trace(served, idx)).log_softmax(-1)  # (L + 1, T, V)
            top = logp.topk(min(5, logp.shape[-1]))
            came = logp[:, :-1].gather(2, idx[1:].expand(len(logp), -1)[..., None])
            return {
                "top": top.indices.tolist(),
                "probability": _rounded(top.values.exp()),
                "entropy": _rounded(-(logp.exp() * logp).sum(-1)),
                "rank": (logp[:, :-1] > came).sum(-1).tolist(),
            }

        return JSONResponse(await self._on(body, work))

    async def surprise(self, request: Request) -> Response:
        """Loss, rank, entropy and the likeliest tokens at each position of a text."""
        body = await read_body(request, TextBody)

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            with torch.no_grad(), evaluating(served.loaded.model):
                found = surprise(served.loaded.model(idx[None])[0], idx, k=TOP)
            return {
                "loss": _rounded(found.loss),
                "rank": found.rank.tolist(),
                "entropy": _rounded(found.entropy),
                "top": found.top.tolist(),
                "probability": _rounded(found.top_probabilities),
            }

        return JSONResponse(await self._on(body, work))

    async def contributions(self, request: Request) -> Response:
        """The terms of one logit."""
        body = await read_body(request, PositionBody)

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            seen = _trace(served, idx)
            if not -len(idx) <= body.position < len(idx):
                raise RequestError(400, f"position: the text has {len(idx)} tokens, got {body.position}")
            token = int(seen.logits[body.position].argmax()) if body.token is None else body.token
            if token >= seen.logits.shape[1]:
                raise RequestError(400, f"token: the model has {seen.logits.shape[1]} ids, got {token}", param="token")
            found = contributions(served.loaded.model, seen, position=body.position, token=token)
            logit = float(seen.logits[body.position, token])
            return {"token": token, "logit": logit, "names": found.names, "values": _rounded(found.values)}

        return JSONResponse(await self._on(body, work))

    async def ablation(self, request: Request) -> Response:
        """Loss of each token and the next token's probabilities, with all parts and without some."""
        body = await read_body(request, AblationBody)
        heads = [(head[0], head[1]) for head in body.heads if len(head) == 2]

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            model = _with_blocks(served)
            answer = {}
            for name, off in (("whole", False), ("without", True)):
                with torch.no_grad(), evaluating(model):
                    if off:
                        with without(model, heads=heads, mlps=body.mlps, instead=body.instead):
                            logits = model(idx[None])[0]
                    else:
                        logits = model(idx[None])[0]
                next_ = logits[-1].softmax(-1).topk(min(TOP, logits.shape[1]))
                answer[name] = {
                    "loss": _rounded(surprise(logits, idx).loss),
                    "top": next_.indices.tolist(),
                    "probability": _rounded(next_.values),
                }
            return answer

        return JSONResponse(await self._on(body, work))

    async def importance(self, request: Request) -> Response:
        """Growth of the loss with each head off alone."""
        body = await read_body(request, AblationBody)
        return JSONResponse(
            await self._on(
                body,
                lambda served, idx: {"growth": _rounded(importance(_with_blocks(served), idx, instead=body.instead))},
            )
        )

    async def heads(self, request: Request) -> Response:
        """Scores of the head detectors, and their labels."""
        served = find(self.server.models, request.query_params.get("model"))

        def work() -> dict[str, Any]:
            scores = head_scores(_with_blocks(served))
            return {"labels": labels(scores), "scores": {kind: _rounded(score) for kind, score in scores.items()}}

        async with self._one_at_a_time:
            return JSONResponse(await self.server.loop.call(work))

    async def neighbors(self, request: Request) -> Response:
        """Tokens near one in the embedding."""
        body = await read_body(request, PositionBody)
        served = find(self.server.models, body.model)
        token = body.token or 0
        if token >= served.loaded.config.vocab_size:
            raise RequestError(400, f"token: the model has {served.loaded.config.vocab_size} ids, got {token}")
        ids, cosines = await self.server.loop.call(lambda: neighbors(_with_blocks(served), token, k=TOP))
        return JSONResponse({"tokens": ids.tolist(), "cosine": _rounded(cosines)})

    async def run(self, request: Request) -> Response:
        """Curves and samples of the run that the model is of; empty where it lies in none."""
        served = find(self.server.models, request.query_params.get("model"))
        folder = next((path for path in folders_around(served.loaded.path) if is_run(path)), None)
        if folder is None:
            return JSONResponse({"state": "", "bigram": None, "train": [], "val": [], "samples": []})
        history = await asyncio.to_thread(read_run, folder)

        def column(key: str) -> list[tuple[int, Any]]:
            return [(row["step"], row[key]) for row in history.rows if key in row]

        return JSONResponse(
            {
                "state": history.state,
                "bigram": history.facts.get("bigram_loss"),
                "train": [pair for pair in column("train/loss") if is_finite(pair[1])],
                "val": [pair for pair in column("val/loss") if is_finite(pair[1])],
                "samples": column("sample"),
            }
        )

    async def _on(self, body: TextBody, work: Callable[[Served, Tensor], Any]) -> Any:
        served = find(self.server.models, body.model)
        ids = served.prompt_ids(body.text or "") if body.tokens is None else body.tokens
        most = min(MAX_TOKENS, served.context)
        if not 1 <= len(ids) <= most:
            raise RequestError(400, f"1 to {most} tokens can be looked at, got {len(ids)}", code="invalid_value")
        if max(ids) >= served.loaded.config.vocab_size:
            raise RequestError(400, f"tokens: the model has {served.loaded.config.vocab_size} ids, got {max(ids)}")
        async with self._one_at_a_time:
            return await self.server.loop.call(lambda: work(served, torch.tensor(ids)))


def routes(server: Server) -> list[Route]:
    """The paths below /api."""
    looking = Looking(server)
    posts = (
        looking.tokens,
        looking.logits,
        looking.attention,
        looking.lens,
        looking.surprise,
        looking.contributions,
        looking.ablation,
        looking.importance,
        looking.neighbors,
    )
    gets = (looking.facts, looking.vocabulary, looking.heads, looking.run)
    return [Route(f"/api/{handler.__name__}", handler, methods=["POST"]) for handler in posts] + [
        Route(f"/api/{handler.__name__}", handler) for handler in gets
    ]


def _with_blocks(served: Served) -> Any:
    if isinstance(served.loaded.model, Bigram):
        raise RequestError(400, f"{served.id} is a table of pairs: it has no layers to look into", code="no_layers")
    return served.loaded.model


def _trace(served: Served, idx: Tensor) -> Trace:
    return trace(_with_blocks(served), idx)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().numpy().tobytes()


def _rounded(values: Tensor) -> Any:
    """Five digits: more than a picture shows, and a fourth of the bytes."""
    return json.loads(json.dumps(values.tolist()), parse_float=lambda text: float(f"{float(text):.5g}"))
