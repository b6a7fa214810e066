"""What the page asks of the parts of a model: heads and MLPs switched off, the jobs of heads, the embedding."""

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from groundup.inspection.ablation import Instead, importance, without
from groundup.inspection.detectors import head_scores, labels
from groundup.inspection.neighbors import neighbors
from groundup.inspection.surprise import surprise
from groundup.playground.analysis import (
    TOP,
    Analyses,
    PositionBody,
    TextBody,
    check_token,
    logits_of,
    rounded,
    with_blocks,
)
from groundup.serving.bodies import read_body
from groundup.serving.models import Served

Place = Annotated[int, Field(ge=0, lt=1024)]


class AblationBody(TextBody):
    """Parts that are off: heads as [layer, head], MLPs by their layer."""

    heads: Annotated[list[Annotated[list[Place], Field(min_length=2, max_length=2)]], Field(max_length=4096)] = Field(
        default_factory=list
    )
    mlps: Annotated[list[Place], Field(max_length=1024)] = Field(default_factory=list)
    instead: Instead = "mean"


class Parts:
    """Handlers.

    Args:
        analyses: Runs them.
    """

    def __init__(self, analyses: Analyses) -> None:
        self.analyses = analyses

    async def ablation(self, request: Request) -> Response:
        """Loss of each token and the next token's probabilities, with all parts and without some."""
        body = await read_body(request, AblationBody)
        heads = [(head[0], head[1]) for head in body.heads]

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            model = with_blocks(served)

            def told(logits: Tensor) -> dict[str, Any]:
                following = logits[-1].softmax(-1).topk(min(TOP, logits.shape[1]))
                return {
                    "loss": rounded(surprise(logits, idx).loss),
                    "top": following.indices.tolist(),
                    "probability": rounded(following.values),
                }

            whole = told(logits_of(served, idx))
            with without(model, heads=heads, mlps=body.mlps, instead=body.instead):
                return {"whole": whole, "without": told(logits_of(served, idx))}

        return JSONResponse(await self.analyses.on(body, work))

    async def importance(self, request: Request) -> Response:
        """Growth of the loss with each head off alone."""
        body = await read_body(request, AblationBody)

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            return {"growth": rounded(importance(with_blocks(served), idx, instead=body.instead))}

        return JSONResponse(await self.analyses.on(body, work))

    async def heads(self, request: Request) -> Response:
        """Scores of the head detectors, and their labels."""
        served = await self.analyses.server.models.find(request.query_params.get("model"))

        def work() -> dict[str, Any]:
            scores = head_scores(with_blocks(served))
            return {"labels": labels(scores), "scores": {kind: rounded(score) for kind, score in scores.items()}}

        return JSONResponse(await self.analyses.call(work))

    async def neighbors(self, request: Request) -> Response:
        """Tokens near one in the embedding."""
        body = await read_body(request, PositionBody)
        served = await self.analyses.server.models.find(body.model)
        token = body.token or 0
        check_token(token, served)
        ids, cosines = await self.analyses.call(lambda: neighbors(with_blocks(served), token, k=TOP))
        return JSONResponse({"tokens": ids.tolist(), "cosine": rounded(cosines)})


def routes(analyses: Analyses) -> list[Route]:
    """The paths below /api that ask about parts."""
    parts = Parts(analyses)
    posts = (parts.ablation, parts.importance, parts.neighbors)
    return [
        *[Route(f"/api/{handler.__name__}", handler, methods=["POST"]) for handler in posts],
        Route("/api/heads", parts.heads),
    ]
