"""The API described for programs (OpenAPI 3.1): every path that takes a body, with the schema of the body."""

from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from groundup import __version__
from groundup.playground.analysis import PositionBody, TextBody
from groundup.playground.looking import CellBody, CompareBody, LayerBody
from groundup.playground.parts import AblationBody, ImportanceBody, NeighborsBody, WritingBody
from groundup.playground.trainings import StartBody, StopBody
from groundup.serving.bodies import Body, CompletionBody, DetokenizeBody, TokenizeBody

BODIES: dict[str, type[Body]] = {
    "/v1/completions": CompletionBody,
    "/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
    "/api/logits": TextBody,
    "/api/attention": LayerBody,
    "/api/cell": CellBody,
    "/api/lens": TextBody,
    "/api/surprise": TextBody,
    "/api/contributions": PositionBody,
    "/api/compare": CompareBody,
    "/api/ablation": AblationBody,
    "/api/writing": WritingBody,
    "/api/importance": ImportanceBody,
    "/api/neighbors": NeighborsBody,
    "/api/train": StartBody,
    "/api/train/stop": StopBody,
}
QUERIES: dict[str, tuple[str, ...]] = {
    "/v1/models": (),
    "/tokenizer_info": ("model",),
    "/livez": (),
    "/readyz": (),
    "/metrics": (),
    "/api/facts": ("model",),
    "/api/vocabulary": ("model",),
    "/api/steps": ("model",),
    "/api/runs": (),
    "/api/run": ("model",),
    "/api/slots": ("model", "after"),
    "/api/heads": ("model",),
    "/api/train": (),
}
"""Paths that are read, and what may follow the question mark."""
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


@cache
def document() -> dict[str, Any]:
    """The whole description."""
    schemas: dict[str, Any] = {"Error": ERROR}
    paths: dict[str, Any] = {path: {"get": _reading(names)} for path, names in QUERIES.items()}
    for path, body in BODIES.items():
        schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[body.__name__] = schema
        paths.setdefault(path, {})["post"] = {
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}},
            },
            "responses": _responses(),
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "groundup", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


async def show_openapi(_request: Request) -> Response:
    """The description, as JSON."""
    return JSONResponse(document())


def _reading(names: tuple[str, ...]) -> dict[str, Any]:
    parameters = [{"name": name, "in": "query", "required": False, "schema": {"type": "string"}} for name in names]
    return {"parameters": parameters, "responses": _responses()}


def _responses() -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "2XX": {"description": "done"},
        "4XX": {"description": "refused, with the reason", "content": error},
        "503": {"description": "stopping, or not ready", "content": error},
    }
