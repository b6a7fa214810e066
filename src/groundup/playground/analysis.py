"""What the analyses of the page share: a text to look at, the limits, and the form of numbers.

Arrays that are large go as bytes and not as JSON: raw logits as float32, attention as uint16 in steps of 1 / 65535. All
of it is computed between two ticks of the engine's thread, one analysis at a time, on at most MAX_TOKENS tokens.
"""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from groundup.config.errors import UserError
from groundup.inspection.trace import Trace, trace
from groundup.model.bigram import Bigram
from groundup.model.types import evaluating
from groundup.serving.app import Server
from groundup.serving.bodies import Body, Id
from groundup.serving.errors import RequestError, invalid
from groundup.serving.models import Served

MAX_TOKENS = 256
"""Of a text that is looked at."""
TOP = 10
"""Candidates that are named."""
TRACES = 2
"""That are kept: of a text under one model, or under two that are compared."""


class TextBody(Body):
    """A text to look at: as text or as ids, one of the two."""

    model: str | None = None
    text: str | None = None
    tokens: list[Id] | None = None


class PositionBody(TextBody):
    """A place in it, and perhaps a token; negative positions count from the end."""

    position: Annotated[int, Field(ge=-MAX_TOKENS, lt=MAX_TOKENS)] = -1
    token: Id | None = None


class Analyses:
    """Runs one analysis at a time on the thread of the engines.

    Args:
        server: Whose models are looked at.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self._one_at_a_time = asyncio.Lock()
        self._traces: OrderedDict[tuple[int, tuple[int, ...]], tuple[Served, Trace]] = OrderedDict()
        """The last ones, by model and text: views ask for parts of one and the same."""

    async def on(self, body: TextBody, work: Callable[[Served, Tensor], Any]) -> Any:
        """Do some work on the model and the ids of a body.

        Raises:
            RequestError: There is no such model, or the text cannot be looked at.
        """
        served = await self.server.models.find(body.model)
        idx = await body.aside(lambda: text_of(body, served))
        return await self.call(lambda: work(served, idx))

    async def call(self, work: Callable[[], Any]) -> Any:
        """Do some work, when it is its turn."""
        async with self._one_at_a_time:
            return await self.server.loop.call(work)

    def traced(self, served: Served, idx: Tensor) -> Trace:
        """The trace of a text. Called on the engines' thread, as are the other two.

        Raises:
            RequestError: The model has no layers, or computes what is no number.
        """
        key = (id(served), tuple(idx.tolist()))
        if key not in self._traces:
            found = trace(with_blocks(served), idx)
            _finite(found.logits)
            self._traces[key] = served, found  # which keeps the model's identity from being given to another
        self._traces.move_to_end(key)
        while len(self._traces) > TRACES:
            self._traces.popitem(last=False)
        return self._traces[key][1]

    def logits(self, served: Served, idx: Tensor) -> Tensor:
        """Of every position: (T, V), in float32."""
        if isinstance(served.loaded.model, Bigram):
            return logits_of(served, idx)
        return self.traced(served, idx).logits.float()

    def next_logits(self, served: Served, idx: Tensor) -> Tensor:
        """Of what comes next alone: (V,). What the text has in common with the last one is not read again."""
        if isinstance(served.loaded.model, Bigram):
            return logits_of(served, idx)[-1]
        ids, slots = idx.tolist(), served.looked
        slot = slots.take(ids[:-1], whole=1)
        try:
            with torch.inference_mode(), evaluating(served.loaded.model):
                hidden = slots.read(slot, ids[len(slots.held[slot]) :])
                return _finite(served.loaded.model.logits(hidden[-1:])[0].float())
        finally:
            slots.give_back(slot)


def text_of(body: TextBody, served: Served) -> Tensor:
    """The ids of a text that is looked at.

    Raises:
        RequestError: Too many or too few, or an id that the model does not have.
    """
    if (body.text is None) == (body.tokens is None):
        raise invalid("text", "give text or tokens, one of the two")
    try:
        ids = served.prompt_ids(body.text) if body.text is not None else body.tokens or []
    except UserError as error:
        raise invalid("text", str(error)) from None
    most = min(MAX_TOKENS, served.context)
    if not 1 <= len(ids) <= most:
        given = "text" if body.tokens is None else "tokens"
        raise invalid(given, f"1 to {most} tokens can be looked at, got {len(ids)}")
    served.check_ids("tokens", ids)
    return torch.tensor(ids)


def with_blocks(served: Served) -> Any:
    """The model, if it has layers.

    Raises:
        RequestError: It is a bigram.
    """
    if isinstance(served.loaded.model, Bigram):
        raise RequestError(400, f"{served.id} is a table of pairs: it has no layers to look into", code="no_layers")
    return served.loaded.model


@torch.no_grad()
def logits_of(served: Served, idx: Tensor) -> Tensor:
    """Of every position, as the model is now: (T, V), in float32."""
    with evaluating(served.loaded.model):
        logits: Tensor = served.loaded.model(idx[None])[0]
    return _finite(logits.float())


def as_bytes(tensor: Tensor) -> bytes:
    """The numbers as they lie in memory, little-endian on every machine that PyTorch runs on."""
    return tensor.cpu().contiguous().numpy().tobytes()


def rounded(values: Tensor) -> Any:
    """Five digits: more than a picture shows, and a fourth of the bytes.

    Raises:
        RequestError: They are not finite, which JSON cannot say.
    """
    return json.loads(json.dumps(_finite(values).tolist()), parse_float=lambda text: float(f"{float(text):.5g}"))


def _finite(values: Tensor) -> Tensor:
    if not values.isfinite().all():
        message = "the model computes NaN or infinity here: its weights are damaged, or its training diverged"
        raise RequestError(500, message, code="not_finite")
    return values
