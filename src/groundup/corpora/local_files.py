"""Documents in files of this machine: a file, a folder, or a glob; the suffix of a file decides how it is read."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.config.errors import UserError
from groundup.corpora.documents import Document
from groundup.corpora.formats import FORMATS, format_of, has_format
from groundup.corpora.pieces import Piece, gather

SAMPLES = 16
"""Places of a file that its fingerprint looks at: hashing all of a terabyte takes longer than an hour."""
SAMPLE_BYTES = 1 << 16


class LocalFiles:
    """All documents of all files, in the order of the files' names.

    Args:
        pattern: A file, a folder (searched through, without what begins with a dot), or a glob, `**` for any depth.
        text_column: Key or column of the text in .jsonl and .parquet.
    """

    name = "files"

    def __init__(self, pattern: str, text_column: str = "text") -> None:
        self.pattern, self.text_column = os.path.abspath(pattern), text_column  # noqa: PTH100  # a Path drops "**/"

    def describe(self) -> dict[str, Any]:
        """Names, sizes and a fingerprint of the contents, wherever the files lie.

        A file of up to 1 MB is hashed whole, a larger one at sixteen places: an edit that keeps the size and misses
        them all goes unnoticed.
        """
        files = self.files()
        base = os.path.commonpath([file.parent for file in files])
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(base).as_posix()}\0".encode())
            digest.update(_sample(file))
        return {
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "sha256": digest.hexdigest(),
            "text_column": self.text_column,
        }

    def files(self) -> list[Path]:
        """The files, by name.

        Raises:
            UserError: There are none, or one cannot be read.
        """
        path = Path(self.pattern)
        if path.is_dir():
            hidden = len(path.parts)
            files = [f for f in path.rglob("*") if has_format(f.name) and not _hidden(f.parts[hidden:]) and f.is_file()]
            if not files:
                raise UserError(f"{path} holds no files that end with {', '.join(FORMATS)}")
        elif path.is_file():
            files = [path]
        elif glob.has_magic(self.pattern):
            found = glob.glob(self.pattern, recursive=True)  # noqa: PTH207  # Path.glob wants a folder to begin in
            files = [path for path in map(Path, found) if path.is_file()]
            if not files:
                raise UserError(f"no file matches {self.pattern}")
        else:
            raise UserError(f"{path} does not exist")
        for file in files:
            format_of(file.name)
            with _opened(file):
                pass
        return sorted(files, key=lambda file: file.as_posix())

    def parts(self) -> Sequence[tuple[Piece, ...]]:
        """Spans of files.

        Raises:
            UserError: There are no files, or one of them is damaged.
        """

        def spans() -> Iterator[tuple[str, Any]]:
            for path in self.files():
                with _opened(path) as file:
                    yield str(path), format_of(path.name).spans(file, str(path), self.text_column)

        return gather(spans())

    def read(self, part: tuple[Piece, ...], skipped: dict[str, int]) -> Iterator[Document]:
        """The documents of some spans.

        Raises:
            UserError: A file is gone, cut or damaged; it is named, with the place.
        """
        for name, start, stop in part:
            with _opened(Path(name)) as file:
                for text in format_of(name).read(file, name, (start, stop), self.text_column, skipped):
                    yield Document(text)


def _hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") for part in parts)


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _sample(path: Path) -> bytes:
    """SHA-256 of the size and of SAMPLES blocks, evenly spread from the first byte to the last."""
    with _opened(path) as file:
        size = file.seek(0, 2)
        digest = hashlib.sha256(str(size).encode())
        last = max(0, size - SAMPLE_BYTES)
        for k in range(SAMPLES):
            file.seek(k * SAMPLE_BYTES if size <= SAMPLES * SAMPLE_BYTES else last * k // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
