"""What the page asks of a model and a text: logits, attention, one cell of it, lens, surprise, pushes, two models."""

from typing import Annotated, Any

import torch
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from groundup.inspection.cell import explain_cell
from groundup.inspection.compare import compare
from groundup.inspection.contributions import contributions
from groundup.inspection.lens import lens_rows
from groundup.inspection.predictions import predictions
from groundup.inspection.surprise import surprise
from groundup.inspection.trace import Trace
from groundup.playground.analysis import (
    MAX_TOKENS,
    TOP,
    Analyses,
    PositionBody,
    TextBody,
    as_bytes,
    rounded,
    text_of,
)
from groundup.serving.bodies import read_body
from groundup.serving.errors import RequestError, invalid
from groundup.serving.models import Served

STEPS = 65535
Position = Annotated[int, Field(ge=0, lt=MAX_TOKENS)]


class LayerBody(TextBody):
    """A layer of it."""

    layer: Annotated[int, Field(ge=0, lt=1024)] = 0


class CellBody(LayerBody):
    """One entry of a head's pattern: what position `row` takes from position `column`."""

    head: Annotated[int, Field(ge=0, lt=1024)] = 0
    row: Position
    column: Position


class CompareBody(TextBody):
    """A second model beside `model`."""

    other: str


class Looking:
    """Handlers.

    Args:
        analyses: Runs them.
    """

    def __init__(self, analyses: Analyses) -> None:
        self.analyses = analyses

    async def logits(self, request: Request) -> Response:
        """Raw logits of what comes next, float32, little-endian."""
        body = await read_body(request, TextBody)
        found = await self.analyses.on(body, lambda served, idx: as_bytes(self.analyses.next_logits(served, idx)))
        return Response(found, media_type="application/octet-stream")

    async def attention(self, request: Request) -> Response:
        """Weights of all heads of a layer, then the lengths of their values: uint16 (H, T, T), float32 (H, T)."""
        body = await read_body(request, LayerBody)

        def work(served: Served, idx: Tensor) -> bytes:
            seen = self.analyses.traced(served, idx)
            _check_layer(seen, body.layer)
            weights = (seen.attention[body.layer] * STEPS).round().to(torch.int32).to(torch.uint16)
            return as_bytes(weights) + as_bytes(seen.values[body.layer].norm(dim=-1).float())

        return Response(await self.analyses.on(body, work), media_type="application/octet-stream")

    async def cell(self, request: Request) -> Response:
        """One attention weight with all the numbers that make it."""
        body = await read_body(request, CellBody)

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            seen = self.analyses.traced(served, idx)
            _check_layer(seen, body.layer)
            _, n_head, n_tokens, width = seen.queries.shape
            if body.head >= n_head or not body.column <= body.row < n_tokens:
                raise invalid(
                    "row",
                    f"the layer has heads 0 to {n_head - 1}, the text positions 0 to {n_tokens - 1}, and a row sees"
                    f" columns up to itself; got head {body.head}, row {body.row}, column {body.column}",
                )
            cell = explain_cell(seen, layer=body.layer, head=body.head, row=body.row, column=body.column)
            return {
                "width": width,
                "query": rounded(cell.query),
                "key": rounded(cell.key),
                "products": rounded(cell.products),
                "score": cell.score,
                "scores": rounded(cell.scores),
                "masked": n_tokens - 1 - body.row,
                "exponentials": rounded(cell.exponentials),
                "weight": cell.weight,
                "value": rounded(cell.value),
                "taken": rounded(cell.taken),
            }

        return JSONResponse(await self.analyses.on(body, work))

    async def lens(self, request: Request) -> Response:
        """Per layer and position: the likeliest token, its probability, entropy, and the rank of what really came."""
        body = await read_body(request, TextBody)

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            lens = lens_rows(served.loaded.model, self.analyses.traced(served, idx))
            rows = [predictions(logits.float(), idx[1:]) for logits in lens]
            return {
                "top": [row.top.tolist() for row in rows],
                "probability": rounded(torch.stack([row.top_probabilities for row in rows])),
                "entropy": rounded(torch.stack([row.entropy for row in rows])),
                "rank": [row.rank.tolist() for row in rows],
            }

        return JSONResponse(await self.analyses.on(body, work))

    async def surprise(self, request: Request) -> Response:
        """Loss, rank, entropy and the likeliest tokens at each position of a text."""
        body = await read_body(request, TextBody)

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            found = surprise(self.analyses.logits(served, idx), idx, k=TOP)
            return {
                "loss": rounded(found.loss),
                "rank": found.rank.tolist(),
                "entropy": rounded(found.entropy),
                "top": found.top.tolist(),
                "probability": rounded(found.top_probabilities),
            }

        return JSONResponse(await self.analyses.on(body, work))

    async def contributions(self, request: Request) -> Response:
        """The terms of one logit."""
        body = await read_body(request, PositionBody)

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            seen = self.analyses.traced(served, idx)
            if not -len(idx) <= body.position < len(idx):
                raise invalid("position", f"position: the text has {len(idx)} tokens, got {body.position}")
            token = int(seen.logits[body.position].argmax()) if body.token is None else body.token
            served.check_ids("token", [token])
            found = contributions(served.loaded.model, seen, position=body.position, token=token)
            logit = float(seen.logits[body.position, token])
            return {"token": token, "logit": logit, "names": found.names, "values": rounded(found.values)}

        return JSONResponse(await self.analyses.on(body, work))

    async def compare(self, request: Request) -> Response:
        """Loss of each token under two models, and how far their distributions are apart after each."""
        body = await read_body(request, CompareBody)
        served = await self.analyses.server.models.find(body.model)
        try:
            other = await self.analyses.server.models.find(body.other)
        except RequestError as error:
            error.param = "other"
            raise
        if served.loaded.tokenizer.fingerprint != other.loaded.tokenizer.fingerprint:
            message = f"{served.id} and {other.id} cut text into other tokens: they cannot be compared token by token"
            raise invalid("other", message)
        idx, others = await body.aside(lambda: (text_of(body, served), text_of(body, other)))

        def work() -> dict[str, Any]:
            found = compare(self.analyses.logits(served, idx), self.analyses.logits(other, others), idx)
            return {
                "loss": rounded(found.loss),
                "other_loss": rounded(found.other_loss),
                "difference": rounded(found.other_loss - found.loss),
                "divergence": rounded(found.divergence),
            }

        return JSONResponse(await self.analyses.call(work))


def routes(analyses: Analyses) -> list[Route]:
    """The paths below /api that ask about a text."""
    looking = Looking(analyses)
    handlers = (
        looking.logits,
        looking.attention,
        looking.cell,
        looking.lens,
        looking.surprise,
        looking.contributions,
        looking.compare,
    )
    return [Route(f"/api/{handler.__name__}", handler, methods=["POST"]) for handler in handlers]


def _check_layer(seen: Trace, layer: int) -> None:
    if layer >= len(seen.attention):
        raise invalid("layer", f"the model has layers 0 to {len(seen.attention) - 1}, got {layer}")
