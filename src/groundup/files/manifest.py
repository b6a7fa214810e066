"""The manifest of a folder: each of its files with its size and SHA-256, written last by `files.atomic`.

Readers of a checkpoint or a model folder check it first: a file that is missing, cut or changed is named.
"""

import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from groundup.config.errors import UserError, reading
from groundup.config.io import dump_json, read_json, refuse_pointer

MANIFEST = "manifest.json"
SAMPLES = 16
"""Places of a large file that `sample_digest` looks at: hashing all of a terabyte takes longer than an hour."""
SAMPLE_BYTES = 1 << 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
Facts = dict[str, Any]
"""What a manifest says of a file: its bytes and its sha256."""


@dataclass(frozen=True, slots=True)
class _Facts:
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Manifest:
    format: Literal[1]
    files: dict[str, _Facts]


def file_facts(file: Path) -> Facts:
    """What a manifest says of a file."""
    return {"bytes": file.stat().st_size, "sha256": sha256_file(file)}


def manifest_json(files: dict[str, Facts]) -> str:
    """The text of a manifest that names these files."""
    return dump_json({"format": 1, "files": files})


def verify_folder(folder: Path, *names: str) -> None:
    """Check every file of a folder against its manifest.

    Args:
        folder: The folder.
        names: Files that will be read: the manifest must name them.

    Raises:
        UserError: A file is missing, cannot be read, has another size or another SHA-256, or there is no manifest, or
            it does not know a name; the file is named.
    """
    files = read_manifest(folder)
    if unknown := [name for name in names if name not in files]:
        raise UserError(f"{folder / MANIFEST} is damaged: it does not name {', '.join(unknown)}")
    for name, facts in files.items():
        file = folder / name
        with reading(file):
            if not file.is_file() or file.is_symlink():
                raise UserError(f"{file} is missing")
            if (size := file.stat().st_size) != facts["bytes"]:
                refuse_pointer(file)
                raise UserError(f"{file} is damaged: {size} bytes instead of {facts['bytes']}")
            if sha256_file(file) != facts["sha256"]:
                raise UserError(f"{file} is damaged: its SHA-256 is not the one in {MANIFEST}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Names, sizes and hashes of the files of a folder.

    Raises:
        UserError: There is no readable manifest, or it names files elsewhere.
    """
    path = folder / MANIFEST
    if path.is_symlink():
        raise UserError(f"{path} is a link, not a manifest")
    manifest = read_json(path, _Manifest)
    if odd := [name for name in manifest.files if not _NAME.fullmatch(name)]:
        raise UserError(f"{path} is damaged: it names {odd[0]!r}, which is not a manifest's to name")
    return {name: asdict(facts) for name, facts in manifest.files.items()}


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sample_digest(file: BinaryIO, *, whole: int = 0) -> bytes:
    """SHA-256 of a file's size and of SAMPLES blocks, evenly spread from its first byte to its last.

    Args:
        file: Open at any place.
        whole: Of a file up to this size, all blocks count.
    """
    size = file.seek(0, 2)
    digest = hashlib.sha256(str(size).encode())
    last = max(0, size - SAMPLE_BYTES)
    all_places = range(0, size, SAMPLE_BYTES)
    for place in all_places if size <= whole else [last * k // (SAMPLES - 1) for k in range(SAMPLES)]:
        file.seek(place)
        digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()


def has_digest(path: Path, digest: str) -> bool:
    """Whether a file is the one that a Hub lists, by its SHA-256 (64 digits) or by the hash of its git blob (40)."""
    if len(digest) == 64:
        return sha256_file(path) == digest
    git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            git.update(chunk)
    return git.hexdigest() == digest
