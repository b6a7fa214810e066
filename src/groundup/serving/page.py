"""The files of the page: read once, served with types of our own and a tag of their contents.

Types come from a table and not from the system: on some machines the registry says that JavaScript is plain text, and
browsers then refuse to run it.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file."""

    data: bytes
    kind: str
    tag: str


def page_files() -> dict[str, PageFile]:
    """Every file of the page by its path; / is index.html."""
    root = resources.files("groundup.serving") / "page"
    files = {f"/{path}": _read(entry) for path, entry in _walk(root) if any(path.endswith(end) for end in TYPES)}
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files


def page_routes(files: dict[str, PageFile]) -> list[Route]:
    """A route for each file."""
    return [Route(path, _answer(file)) for path, file in files.items()]


def _answer(file: PageFile):  # type: ignore[no-untyped-def]  # a handler of starlette's
    async def handler(request: Request) -> Response:
        headers = {"etag": file.tag, "cache-control": "no-cache"}  # ask again: an upgrade is seen at once
        if request.headers.get("if-none-match") == file.tag:
            return Response(status_code=304, headers=headers)
        return Response(file.data, media_type=None, headers=headers | {"content-type": file.kind})

    return handler


def _walk(folder: Traversable, prefix: str = "") -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _walk(entry, f"{prefix}{entry.name}/")
        else:
            found.append((prefix + entry.name, entry))
    return found


def _read(entry: Traversable) -> PageFile:
    data = entry.read_bytes()
    kind = next(kind for end, kind in TYPES.items() if entry.name.endswith(end))
    return PageFile(data, kind, f'"{hashlib.sha256(data).hexdigest()[:16]}"')
