"""Who may talk to the server: the checks, in their order, before a body is read.

A server on 127.0.0.1 is not private: every page in the browser can send requests to it, and a page whose name suddenly
points at 127.0.0.1 (DNS rebinding) even has the right Origin for it. So a Host must be one that nobody else can own; a
page of another origin is refused; and a body must be JSON, which no plain form can send without asking first.
"""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from groundup.serving.errors import RequestError, shown

OPEN_PATHS = ("/livez", "/readyz")
"""Answered without a key, beside the files of the page."""
BODY_BYTES = 1 << 20
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""On every answer. The page can load nothing from elsewhere, and no other page can embed it."""


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one server.

    Args:
        hosts: Values of Host that are ours, with their port, in lower case. None takes any: a server on all addresses
            of a machine cannot know its names, and a key keeps strangers out.
        key: What `Authorization: Bearer` must carry; None asks for nothing.
        page_paths: Paths of the page's files: open without the key, which the page gets from the person.
    """

    hosts: frozenset[str] | None
    key: str | None
    page_paths: frozenset[str]

    def check(self, method: str, path: str, headers: Iterable[tuple[str, str]]) -> None:
        """Let a request pass, or not.

        Args:
            method: GET, POST, ...
            path: Without the query.
            headers: Names in lower case, with values, as often as they were sent.

        Raises:
            RequestError: 421, 403, 415, 411, 413 or 401, for the first check that fails.
        """
        found: dict[str, list[str]] = {}
        for name, value in headers:
            found.setdefault(name, []).append(value)
        host = self._host(found.get("host", []))
        # Of a name that is not ours, what stands before this server may speak TLS.
        ours = {f"http://{name}" for name in self.hosts or {host}} | (
            {f"https://{host}"} if self.hosts is None else set()
        )
        if any(origin.lower() not in ours for origin in found.get("origin", [])):
            raise RequestError(403, "pages of other origins may not use this server", code="wrong_origin")
        _check_site(method, path, {name: values[0] for name, values in found.items()})
        if method == "POST":
            _check_body(found)
        if self.key is not None and path not in self.page_paths and path not in OPEN_PATHS:
            scheme, _, given = found.get("authorization", [""])[0].partition(" ")
            if scheme.lower() != "bearer" or not secrets.compare_digest(given.encode(), self.key.encode()):
                raise RequestError(
                    401,
                    "this server needs a key: send it as Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )

    def _host(self, values: list[str]) -> str:
        if len(values) == 1 and (self.hosts is None or values[0].lower() in self.hosts):
            return values[0].lower()
        names = ", ".join(sorted(self.hosts or {"one name"}))
        raise RequestError(421, f"this server answers to {names}", code="wrong_host")


def _check_site(method: str, path: str, headers: Mapping[str, str]) -> None:
    site = headers.get("sec-fetch-site", "none")
    opened = headers.get("sec-fetch-mode") == "navigate" and (method, path) == ("GET", "/")  # by a link
    if site not in ("same-origin", "none") and not (opened and site in ("cross-site", "same-site")):
        raise RequestError(403, "pages of other sites may not use this server", code="wrong_site")
    if method not in ("GET", "HEAD", "POST"):
        raise RequestError(403, f"the method {shown(method)} is not answered here", code="wrong_method")


def _check_body(headers: Mapping[str, list[str]]) -> None:
    kind, _, rest = headers.get("content-type", [""])[0].partition(";")
    charset = rest.strip().lower().removeprefix("charset=").strip('"')
    if kind.strip().lower() != "application/json" or charset not in ("", "utf-8"):
        raise RequestError(415, "send the body as Content-Type: application/json, in UTF-8", code="not_json")
    if headers.get("content-encoding", ["identity"])[0].lower() != "identity":
        raise RequestError(415, "compressed bodies are not read here", code="not_json")
    length = headers.get("content-length", ["0"])[0]
    if not (length.isascii() and length.isdecimal()) or int(length) > BODY_BYTES:
        raise RequestError(413, f"a body may have {BODY_BYTES:,} bytes", code="body_too_large")
