"""Fetch a file once: resumed where it was cut, checked by size and SHA-256, then kept."""

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from groundup.config.errors import UserError
from groundup.files.manifest import sha256_file

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as cut."""
TRIES = 5
"""Connections in a row that may bring nothing new before we give up."""
WAIT = 1.0
"""Seconds of rest before a connection that follows one without anything new; doubled from one to the next."""
CHUNK = 1 << 20


def download(url: str, path: Path, *, size: int, sha256: str, instead: str = "--data.path") -> Path:
    """Bring `url` to `path`, or do nothing when it is there and whole.

    Args:
        url: Where it is.
        path: Where it goes. What has come so far lies beside it as `.part`, for this call or a later one.
        size: Bytes of the whole file.
        sha256: Of the whole file, in hex.
        instead: The flag that takes a local copy, for the message.

    Raises:
        UserError: It cannot be had, or is not the expected file.
    """
    if _whole(path, size, sha256):
        return path
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):  # two at once would mix their bytes
            if _whole(path, size, sha256):
                return path
            _fetch(url, part, size, instead)
            if sha256_file(part) != sha256:
                part.unlink()
                raise UserError(f"{url} is not the expected file: its SHA-256 differs; nothing was kept")
            part.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _whole(path: Path, size: int, sha256: str) -> bool:
    return path.exists() and path.stat().st_size == size and sha256_file(path) == sha256


def _fetch(url: str, part: Path, size: int, instead: str) -> None:
    """Append to `part` until it has `size` bytes."""
    reason = ""
    idle = most = 0
    while idle < TRIES:
        have = part.stat().st_size if part.exists() else 0
        if have == size:
            return
        if have > size:
            part.unlink()
            have = 0
        try:
            _read_from(url, part, have, size)
        except urllib.error.HTTPError as error:
            reason = f"HTTP status {error.code}"
            if error.code == 416:  # the file is shorter than what we have of it: start again
                part.unlink(missing_ok=True)
            elif error.code < 500:
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        else:
            reason = "the connection ended early"
        now = part.stat().st_size if part.exists() else 0
        if now == size:
            return
        # Progress is to have more than ever: a server that cuts a file short could keep us busy for good.
        idle = 0 if now > max(most, have) else idle + 1
        most = max(most, now)
        if 0 < idle < TRIES:
            time.sleep(WAIT * 2 ** (idle - 1))
    raise UserError(f"cannot download {url}: {reason}; offline, give a local copy with {instead}")


def _read_from(url: str, part: Path, have: int, size: int) -> None:
    """One connection's worth of bytes."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        with part.open("ab" if resumed else "wb") as file:
            left = size - (have if resumed else 0)
            while left > 0 and (chunk := answer.read(min(CHUNK, left))):
                file.write(chunk)
                left -= len(chunk)
