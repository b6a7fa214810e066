"""Documents in files of this machine: a file, a folder, or a glob; the suffix of a file decides how it is read."""

import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.corpora.patterns import find_files, match_files, once
from groundup.formats.by_suffix import FORMATS, SAID, Format, format_of, has_format, read_spans
from groundup.formats.document import Document
from groundup.formats.spans import FileSpan, Span, gather

SAMPLES = 16
"""Places of a large file that its fingerprint looks at: hashing all of a terabyte takes longer than an hour."""
SAMPLE_BYTES = 1 << 16
WHOLE_BYTES = 64 << 20
"""Files up to this size are hashed whole."""


class LocalFiles:
    """All documents of all files, in the order of the files' names. A file that two links lead to is read once.

    Args:
        pattern: A file, a folder (searched through, without what begins with a dot), or a glob, `**` for any depth.
        config: How files are read.
    """

    name = "files"

    def __init__(self, pattern: str, config: ReadConfig | None = None) -> None:
        self.pattern = os.path.abspath(pattern)  # noqa: PTH100  # a Path drops "**/"
        self.config = config or ReadConfig()

    def describe(self) -> dict[str, Any]:
        """Names, sizes and a fingerprint of the contents, wherever the files lie, and how they are read.

        A file of up to 64 MB is hashed whole, a larger one at sixteen places: an edit that keeps the size and misses
        them all goes unnoticed.
        """
        files = self.files()
        base = os.path.commonpath([file.parent for file in files])
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(base).as_posix()}\0".encode())
            digest.update(_sample(file))
        config = self.config
        return {
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
            "sha256": digest.hexdigest(),
            "text_column": config.text_column,
            "separator": config.between,
            "text_suffixes": " ".join(config.text_suffixes),
            "bad_files": config.bad_files,
        }

    def files(self) -> list[Path]:
        """The files, by name.

        Raises:
            UserError: There are none, or the format of one cannot be told.
        """
        path = Path(self.pattern)
        suffixes = self.config.text_suffixes
        if path.is_dir():
            files = [file for file in find_files(path, follow=False) if has_format(file.name, suffixes)]
            files = [file for file in files if file.suffix.lower() != ".json" or self._holds_records(file)]
            if not files:
                raise UserError(
                    f"{path} holds no files that end with {SAID};"
                    f" {self.config.FLAGS}text-suffixes names more endings of plain text"
                )
        elif path.exists():
            files = [path]
        elif glob.has_magic(self.pattern):
            try:
                files = match_files(self.pattern)
            except ValueError as error:
                raise UserError(f"{self.pattern} is no glob: {error}") from None
            if not files:
                raise UserError(f"no file matches {self.pattern}")
        else:
            raise UserError(f"{path} does not exist")
        files = once(files)
        for file in files:
            self._format(str(file))
        if not any(file.stat().st_size for file in files) and all(file.is_file() for file in files):
            raise UserError(f"{path} is empty")
        return files

    def _holds_records(self, path: Path) -> bool:
        """Whether a .json is an array, or lines that have the text: in a folder, most are something else."""
        try:
            with path.open("rb") as file:
                head = file.read(SAMPLE_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
        except OSError:
            return True
        return head.startswith(b"[") or f'"{self.config.text_column}"'.encode() in head.partition(b"\n")[0]

    def _format(self, name: str) -> Format:
        """The format of a file; one without a suffix is plain text."""
        path = Path(name)
        return FORMATS[".txt"] if not path.suffix else format_of(path.name, self.config)

    def parts(self) -> Sequence[tuple[FileSpan, ...]]:
        """Spans of files.

        Raises:
            UserError: There are no files.
        """
        return gather((str(path), self._spans(path)) for path in self.files())

    def _spans(self, path: Path) -> list[Span]:
        """The spans of a file; one that cannot be read is one, and `read` tells what is wrong with it."""
        try:
            with _opened(str(path)) as file:
                return self._format(str(path)).spans(file, str(path), self.config)
        except (UserError, OSError):
            return [Span(0, 1, 1)]

    def read(self, part: tuple[FileSpan, ...], skipped: dict[str, int]) -> Iterator[Document]:
        """The documents of some spans.

        Raises:
            UnreadableError: Files are gone, cut, damaged or not text: all are named, after the last document.
        """
        return read_spans(part, _opened, str, self._format, self.config, skipped)


def _opened(name: str) -> Any:
    try:
        return Path(name).open("rb")
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error


def _sample(path: Path) -> bytes:
    """SHA-256 of the contents; of a large file, of its size and of SAMPLES blocks, evenly spread from end to end."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            digest = hashlib.sha256(str(size).encode())
            last = max(0, size - SAMPLE_BYTES)
            places = (
                range(0, size, SAMPLE_BYTES)
                if size <= WHOLE_BYTES
                else (last * k // (SAMPLES - 1) for k in range(SAMPLES))
            )
            for place in places:
                file.seek(place)
                digest.update(file.read(SAMPLE_BYTES))
            return digest.digest()
    except OSError:
        return b"cannot be read"  # which `read` tells, together with all else that cannot
