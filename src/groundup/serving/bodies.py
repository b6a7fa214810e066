"""Bodies of requests: JSON, strictly typed, every field with its bounds."""

import asyncio
import json
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request

from groundup.serving.access import BODY_BYTES
from groundup.serving.errors import RequestError

Id = Annotated[int, Field(ge=0, lt=2**31)]
BODY_SECONDS = 30.0
"""For a body to come, once its head has."""
MAX_PROMPTS, MAX_CHOICES, MAX_TOP = 64, 64, 20


class Body(BaseModel):
    """Fields that nobody knows are ignored, as clients send their own; known ones must be right."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(Body):
    """Of a streamed completion."""

    include_usage: bool | None = None


class CompletionBody(Body):
    """POST /v1/completions. Every field may be null, which is its default."""

    model: str | None = None
    prompt: str | list[str] | list[Id] | list[list[Id]] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=2**20)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    best_of: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | Annotated[int, Field(ge=0, le=MAX_TOP)] | None = None
    echo: bool | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    suffix: str | None = None
    return_tokens_as_token_ids: bool | None = None


class TokenizeBody(Body):
    """POST /tokenize."""

    prompt: str
    model: str | None = None
    add_special_tokens: bool | None = None
    """An empty text becomes the token that begins a document, as in a prompt."""
    return_token_strs: bool | None = None
    """Also tell each token's text."""


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: list[Id]
    model: str | None = None


B = TypeVar("B", bound=Body)


async def read_body(request: Request, kind: type[B]) -> B:
    """Read and check a body.

    Raises:
        RequestError: Too large, too slow, not JSON, or a field is wrong: the first one is named.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > BODY_BYTES:
                    raise RequestError(413, f"a body may have {BODY_BYTES:,} bytes", code="body_too_large")
    except TimeoutError:
        message = f"the body did not come within {BODY_SECONDS:.0f} seconds"
        raise RequestError(408, message, code="body_too_slow", headers={"connection": "close"}) from None
    try:
        values = json.loads(bytes(data), parse_constant=_refuse_constant)
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}", code="not_json") from None
    if not isinstance(values, dict):
        raise RequestError(400, "the body must be a JSON object", code="not_json")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _first_of(error) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _first_of(error: ValidationError) -> RequestError:
    # A value that fits no member of a union gives an error for each of them: the field, and what fits, say enough.
    first = error.errors(include_url=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else None
    got: Any = first["input"]
    shown = json.dumps(got, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return RequestError(400, f"{field}: {first['msg'].lower()}, got {shown}", param=field, code="invalid_value")
