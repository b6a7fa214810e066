"""What a client is told when it does not get what it asked for: OpenAI's form, which official clients read."""

import json
from typing import Any

from starlette.responses import JSONResponse

SHOWN = 60
"""Characters of a value that a message repeats."""


def shown(value: Any) -> str:
    """A value of a request in one line, as JSON has it; its beginning where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


class RequestError(Exception):
    """A request that is answered with an error.

    Args:
        status: The HTTP status.
        message: One line: what was wrong, the value, what would work.
        param: The field it is about.
        code: A word for programs.
        headers: Sent with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The whole answer. A client would try a 500 again by itself, and fail again: a header tells it not to."""
        headers = self.headers | ({"x-should-retry": "false"} if self.status == 500 else {})
        return JSONResponse(self.body(), self.status, headers)


def invalid(param: str | None, message: str) -> RequestError:
    """A field has a value that cannot be."""
    return RequestError(400, message, param=param, code="invalid_value")


def as_request_error(error: Exception) -> RequestError:
    """What a client is told: whatever a user of the command would be told is about the request here."""
    return error if isinstance(error, RequestError) else invalid(None, str(error))
