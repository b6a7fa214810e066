"""Bodies of requests: JSON, strictly typed, every field with its bounds."""

import asyncio
import difflib
import json
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from starlette.requests import ClientDisconnect, Request

from groundup.config.generate import LEAST_PENALTY, MOST_PENALTY
from groundup.formats.decode import line_ends
from groundup.serving.access import BODY_BYTES
from groundup.serving.errors import SHOWN, RequestError, invalid, shown

Id = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, AfterValidator(line_ends)]
"""A prompt as the tokenizer gets it: what is told of it, and where in it, is of this text."""
BODY_SECONDS = 30.0
"""For a body to come, once its head has."""
LONG = 16 << 10
"""Bytes of a body from which on its text is read by another thread: a megabyte takes a tokenizer a second."""
DIGITS = 40
"""Of an integer: no field needs more, and reading thousands takes long."""
MAX_PROMPTS, MAX_CHOICES, MAX_TOP = 64, 64, 20
R = TypeVar("R")


class Body(BaseModel):
    """Of a request: known fields must be right, and unknown ones are refused, as at OpenAI. None is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    _n_bytes: int = PrivateAttr(0)

    async def aside(self, work: Callable[[], R]) -> R:
        """Do work that takes as long as the body is: for a long one on another thread, so that others are answered."""
        return await asyncio.to_thread(work) if self._n_bytes > LONG else work()


class StreamOptions(Body):
    """Of a streamed completion."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None
    """OpenAI's, on by default there: characters that hide the length of an event. There are none here."""


class CompletionBody(Body):
    """POST /v1/completions. Every field may be null, which is its default."""

    model: str | None = None
    prompt: Text | list[Text] | list[Id] | list[list[Id]] | None = Field(
        None, description="a text, a list of texts, a list of ids, or a list of lists of ids"
    )
    max_tokens: Annotated[int, Field(ge=0, le=2**20)] | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=2**31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=LEAST_PENALTY, le=MOST_PENALTY)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    best_of: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | Annotated[int, Field(ge=0, le=MAX_TOP)] | None = Field(
        None, description=f"a number from 0 to {MAX_TOP}, true or false"
    )
    echo: bool | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = Field(
        None, description="a text, or a list of at most 4 texts"
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    suffix: str | None = None
    ignore_eos: bool | None = None
    """Write on behind the end of a document, as vLLM and llama.cpp have it."""
    user: str | None = None
    """Who asks, as OpenAI has it: a label that changes no text, and is kept nowhere."""
    return_tokens_as_token_ids: bool | None = None


class TokenizeBody(Body):
    """POST /tokenize."""

    prompt: Text
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
        RequestError: Too large, too slow, cut off, not JSON, or a field is wrong: the first one is named.
    """
    check_words(request, ())
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
    except ClientDisconnect:  # or it sent what is no HTTP, and got an answer that says so
        raise RequestError(499, "the client has gone", code="client_gone") from None
    values = _read_json(bytes(data))
    if not isinstance(values, dict):
        raise RequestError(400, "the body must be a JSON object", code="not_json")
    try:
        body = kind.model_validate(values)
    except ValidationError as error:
        raise _first_of(error, kind) from None
    body._n_bytes = len(data)
    return body


def check_words(request: Request, known: Collection[str]) -> None:
    """Check that behind the question mark stands only what is known there, each once.

    Raises:
        RequestError: Something else, or something twice.
    """
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            message = f"there is no parameter {shown(name)}; there are: {', '.join(known) or 'none'}"
            raise RequestError(400, message, param=name, code="unknown_parameter")
        if names.count(name) > 1:
            raise invalid(name, f"{name} stands twice")


def _read_json(data: bytes) -> Any:
    """JSON as its standard has it: in UTF-8, numbers that are numbers, and no key of an object twice.

    Raises:
        RequestError: It is something else.
    """
    try:
        values = json.loads(
            data.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_int=_integer, object_pairs_hook=_object
        )
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except RecursionError:
        raise RequestError(400, "the body is nested too deep", code="not_json") from None
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise RequestError(400, f"the body has {half}, half of a character", code="not_json") from None
    except ValueError as error:
        raise RequestError(400, f"the body is not JSON: {error}", code="not_json") from None
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError(f"an integer of {len(text):,} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{shown(name)} stands twice in an object")
        values[name] = value
    return values


def _first_of(error: ValidationError, kind: type[Body]) -> RequestError:
    first, *others = error.errors(include_url=False, include_context=False)
    field = str(first["loc"][0]) if first["loc"] else None
    if first["type"] == "extra_forbidden":
        name = ".".join(map(str, first["loc"]))  # a body has one object within: options of a stream
        known = list((StreamOptions if len(first["loc"]) > 1 else kind).model_fields)
        near = difflib.get_close_matches(str(first["loc"][-1])[:SHOWN], known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        message = f"there is no field {shown(name)}; {hint}fields are: {', '.join(known) or 'none'}"
        return RequestError(400, message, param=name, code="unknown_field")
    said: str = first["msg"].lower()
    got: Any = first["input"]
    if others and others[0]["loc"][:1] == first["loc"][:1] and field in kind.model_fields:
        # What fits no member of a union gives an error for each of them: one that names them all says more.
        said = f"must be {kind.model_fields[field].description}" if kind.model_fields[field].description else said
    return invalid(field, f"{field}: {said}, got {shown(got)}")
