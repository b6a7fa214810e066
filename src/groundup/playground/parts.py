"""What the page asks of the parts of a model: heads and MLPs switched off, the jobs of heads, the embedding."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from torch import Tensor

from groundup.config.generate import SamplingConfig
from groundup.generation.sampling import Row, sample
from groundup.inspection.ablation import Instead, importances, without
from groundup.inspection.detectors import head_scores, labels
from groundup.inspection.neighbors import neighbors
from groundup.inspection.surprise import surprise
from groundup.playground.analysis import (
    TOP,
    Analyses,
    TextBody,
    logits_of,
    rounded,
    text_of,
    with_blocks,
)
from groundup.serving.bodies import Body, Id, read_body
from groundup.serving.errors import invalid
from groundup.serving.models import Served
from groundup.serving.streams import while_there

Place = Annotated[int, Field(ge=0, lt=1024)]


class AblationBody(TextBody):
    """Parts that are off: heads as [layer, head], MLPs by their layer."""

    heads: Annotated[list[Annotated[list[Place], Field(min_length=2, max_length=2)]], Field(max_length=4096)] = Field(
        default_factory=list
    )
    mlps: Annotated[list[Place], Field(max_length=1024)] = Field(default_factory=list)
    instead: Instead = "mean"


class WritingBody(AblationBody):
    """How the text goes on."""

    max_tokens: Annotated[int, Field(ge=1, le=64)] = 24
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.8
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class ImportanceBody(TextBody):
    """Heads that are switched off one by one: those of a layer, or all."""

    layer: Place | None = None
    instead: Instead = "mean"


class NeighborsBody(Body):
    """A token of a model."""

    model: str | None = None
    token: Id


class Parts:
    """Handlers.

    Args:
        analyses: Runs them.
    """

    def __init__(self, analyses: Analyses) -> None:
        self.analyses = analyses
        self._scores: WeakKeyDictionary[Served, dict[str, Any]] = WeakKeyDictionary()

    async def ablation(self, request: Request) -> Response:
        """Loss of each token and the next token's probabilities, with all parts and without some."""
        body = await read_body(request, AblationBody)
        heads = [(head[0], head[1]) for head in body.heads]

        def work(served: Served, idx: Tensor) -> dict[str, Any]:
            model = with_blocks(served)

            def summary(logits: Tensor) -> dict[str, Any]:
                following = logits[-1].softmax(-1).topk(min(TOP, logits.shape[1]))
                return {
                    "loss": rounded(surprise(logits, idx).loss),
                    "top": following.indices.tolist(),
                    "probability": rounded(following.values),
                }

            whole = summary(self.analyses.logits(served, idx))
            with without(model, heads=heads, mlps=body.mlps, instead=body.instead):
                return {"whole": whole, "without": summary(logits_of(served, idx))}

        return JSONResponse(await self.analyses.on(body, work))

    async def writing(self, request: Request) -> Response:
        """How the text goes on with all parts, and without some, by the same random numbers.

        Nothing is cached: the mean of a head is over all positions. It stops when the client goes away.
        """
        body = await read_body(request, WritingBody)
        served = await self.analyses.server.models.find(body.model)
        with_blocks(served)
        idx = await body.aside(lambda: text_of(body, served))
        everything = body.model_copy(update={"heads": [], "mlps": []})

        texts: dict[str, list[int]] = {"whole": [], "without": []}
        async with while_there(request.receive):
            for name, off in (("whole", everything), ("without", body)):
                draw = partial(next, _written(served, idx.tolist(), off), None)
                while (token := await self.analyses.call(draw)) is not None:
                    texts[name].append(token)  # others have their turn between two
        return JSONResponse({name: served.loaded.tokenizer.decode(ids) for name, ids in texts.items()})

    async def importance(self, request: Request) -> Response:
        """Growth of the loss with each head off alone: of all layers, or of one. It stops when the client goes away."""
        body = await read_body(request, ImportanceBody)
        served = await self.analyses.server.models.find(body.model)
        model, idx = with_blocks(served), await body.aside(lambda: text_of(body, served))
        n_layer, n_head = model.config.n_layer, model.config.n_head
        if body.layer is not None and body.layer >= n_layer:
            raise invalid("layer", f"the model has layers 0 to {n_layer - 1}, got {body.layer}")
        layers = range(n_layer) if body.layer is None else [body.layer]
        heads = [(layer, head) for layer in layers for head in range(n_head)]
        steps = importances(model, idx, heads, instead=body.instead)

        growth = []
        async with while_there(request.receive):
            while (one := await self.analyses.call(lambda: next(steps, None))) is not None:  # others have their turn
                growth.append(one)
        return JSONResponse({"growth": rounded(torch.tensor(growth).view(len(layers), n_head))})

    async def heads(self, request: Request) -> Response:
        """Scores of the head detectors, and their labels."""
        served = await self.analyses.server.models.find(request.query_params.get("model"))

        def work() -> dict[str, Any]:
            scores = head_scores(with_blocks(served))
            return {"labels": labels(scores), "scores": {kind: rounded(score) for kind, score in scores.items()}}

        if served not in self._scores:
            self._scores[served] = await self.analyses.call(work)
        return JSONResponse(self._scores[served])

    async def neighbors(self, request: Request) -> Response:
        """Tokens near one in the embedding."""
        body = await read_body(request, NeighborsBody)
        served = await self.analyses.server.models.find(body.model)
        served.check_ids("token", [body.token])
        ids, cosines = await self.analyses.call(lambda: neighbors(with_blocks(served), body.token, k=TOP))
        return JSONResponse({"tokens": ids.tolist(), "cosine": rounded(cosines)})


def routes(analyses: Analyses) -> list[Route]:
    """The paths below /api that ask about parts."""
    parts = Parts(analyses)
    posts = (parts.ablation, parts.writing, parts.importance, parts.neighbors)
    return [
        *[Route(f"/api/{handler.__name__}", handler, methods=["POST"]) for handler in posts],
        Route("/api/heads", parts.heads),
    ]


def _written(served: Served, prompt: list[int], body: WritingBody) -> Iterator[int]:
    """Tokens that a model without some parts draws."""
    generator = torch.Generator().manual_seed(body.seed)
    row = Row(config=SamplingConfig(temperature=body.temperature), generator=generator, prompt=prompt)
    heads = [(head[0], head[1]) for head in body.heads]
    for _ in range(body.max_tokens):
        seen = torch.tensor([*prompt, *row.drawn][-served.context :])
        with without(served.loaded.model, heads=heads, mlps=body.mlps, instead=body.instead):
            logits = logits_of(served, seen)[-1:]
        row.drawn.append(sample(logits, [row])[0].token)
        yield row.drawn[-1]
