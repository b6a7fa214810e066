"""Documents in files of this machine: a file, a folder, or a glob; the suffix of a file decides how it is read."""

import collections
import functools
import glob
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError, reading
from groundup.corpora.patterns import Found, find_files, found, match_files, not_there, once
from groundup.files.manifest import SAMPLE_BYTES, sample_digest
from groundup.formats.by_suffix import FORMATS, SAID, Format, advice, format_of, has_format, read_spans, text_bytes
from groundup.formats.document import Document
from groundup.formats.spans import FileSpan, Span, gather
from groundup.terminal.display import speaks
from groundup.terminal.say import warn

WHOLE_BYTES = 64 << 20
"""Files up to this size are hashed whole."""
KEPT_BYTES = 32 << 20
"""A corpus up to this size is read from the disk once, and kept."""

Listing = Callable[[Literal["list", "hash"], int], None]
"""Called for each file that is found, and then for each that is hashed, with their number so far."""


class LocalFiles:
    """All documents of all files, in the order of the files' names. A file that two links lead to is read once.

    The files are listed, and their contents hashed, when that is first asked for; what comes later is not seen. Of a
    small corpus, the contents that were hashed are those that are read: for the alphabet, the split and the tokens.

    Args:
        pattern: A file, a folder (searched through, without what begins with a dot or lies behind a link), or a
            glob, `**` for any depth, links as well.
        config: How files are read.
        progress: Called during the work before the first document, which takes long where files are many.
    """

    name = "files"

    def __init__(self, pattern: str, config: ReadConfig | None = None, progress: Listing = lambda *_: None) -> None:
        self.pattern = os.path.abspath(pattern)  # noqa: PTH100  # a Path drops "**/"
        self._glob = os.path.normpath(pattern)
        self._folder = "" if os.path.isabs(pattern) else os.getcwd()  # noqa: PTH109, PTH117  # whose name is no glob
        self.config = config or ReadConfig()
        self._progress = progress
        self._left: dict[str, list[str]] = {}
        self._contents: dict[str, bytes] = {}
        self._documents: dict[tuple[FileSpan, ...], tuple[list[Document], dict[str, int]]] = {}

    def __reduce__(self) -> tuple[type["LocalFiles"], tuple[str, ReadConfig], dict[str, bool]]:
        """Workers are given parts, each once: they need no listing, and keep nothing."""
        return LocalFiles, (self.pattern, self.config), {"_is_kept": False}

    def describe(self) -> dict[str, Any]:
        """Names, sizes and a fingerprint of the contents, wherever the files lie, and how they are read.

        A file of up to 64 MB is hashed whole, a larger one at sixteen places: an edit that keeps the size and misses
        them all goes unnoticed.
        """
        config = self.config
        return {
            "files": len(self._listing),
            "bytes": self.n_bytes(),
            "sha256": self._digest,
            "text_column": config.text_column,
            "separator": config.between,
            "text_suffixes": " ".join(config.text_suffixes),
            "bad_files": config.bad_files,
        }

    def files(self) -> list[Path]:
        """The files, by name.

        Raises:
            UserError: There are none, or the format of one is not known.
        """
        return [Path(file.path) for file in self._listing]

    def n_bytes(self) -> int:
        """Bytes in all files; errors are those of `files`."""
        return sum(file.n_bytes for file in self._listing)

    def text_bytes(self) -> int:
        """About how many bytes of text they hold; errors are those of `files`."""
        return sum(text_bytes(file.path, file.n_bytes) for file in self._listing)

    @functools.cached_property
    def _listing(self) -> list[Found]:
        try:
            files = once(self._find())
        finally:  # it may be why there are none
            for why, folders in self._left.items():
                more = f" and {len(folders) - 1:,} more" if len(folders) > 1 else ""
                _warn_once(f"{self.pattern}: {why}: {folders[0]}{more}")
        for file in files:
            self._format(file.path)
        if not any(file.n_bytes for file in files) and all(file.is_regular for file in files):
            raise UserError(f"{self.pattern} is empty")
        return files

    def _leave(self, folder: str, why: str) -> None:
        self._left.setdefault(why, []).append(folder)

    def _counted(self, files: Iterable[Found]) -> Iterator[Found]:
        for count, file in enumerate(files, start=1):
            self._progress("list", count)
            yield file

    def _find(self) -> list[Found]:
        if Path(self.pattern).is_dir():
            return self._files_in_folder()
        if file := found(self.pattern):
            return [file]
        if not glob.has_magic(self._glob):
            raise UserError(not_there(self.pattern))
        try:
            files = list(self._counted(match_files(self._glob, self._folder, self._leave)))
        except ValueError as error:
            raise UserError(f"{self.pattern} is no glob: {error}") from None
        if not files:
            raise UserError(f"no file matches {self.pattern}")
        return files

    def _files_in_folder(self) -> list[Found]:
        files, endings = [], collections.Counter[str]()
        for file in self._counted(find_files(self.pattern, follow=False, leave=self._leave)):
            name = os.path.basename(file.path)  # noqa: PTH119
            if file.is_folder:
                files.append(file)
            elif not has_format(name, self.config.text_suffixes):
                endings[Path(name).suffix] += 1
            elif not name.lower().endswith(".json") or self._holds_records(file.path):
                files.append(file)
        if not files:
            others = "".join(advice(f"x{ending}", self.config) for ending, _ in endings.most_common(1))
            more = others or f"; {self.config.FLAGS}text-suffixes names more endings of plain text"
            raise UserError(f"{self.pattern} holds no files that end with {SAID}{more}")
        return files

    @functools.cached_property
    def _digest(self) -> str:
        paths = [file.path for file in self._listing]
        base = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
        below = len(os.path.join(base, ""))  # noqa: PTH118
        digest = hashlib.sha256()
        for count, path in enumerate(paths, start=1):
            digest.update(f"{path[below:].replace(os.sep, '/')}\0".encode(errors="surrogateescape"))
            digest.update(self._sample(path))
            self._progress("hash", count)
        return digest.hexdigest()

    def _holds_records(self, path: str) -> bool:
        """Whether a .json is an array, or lines that have the text: in a folder, most are something else."""
        try:
            with _opened(path) as file:
                head = file.read(SAMPLE_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n")
        except UserError:
            return True
        return head.startswith(b"[") or f'"{self.config.text_column}"'.encode() in head.partition(b"\n")[0]

    def _format(self, name: str) -> Format:
        """The format of a file; one without a suffix is plain text."""
        base = name[name.rfind(os.sep) + 1 :]
        return FORMATS[".txt"] if "." not in base.strip(".") else format_of(base, self.config)

    def parts(self) -> Sequence[tuple[FileSpan, ...]]:
        """Spans of files.

        Raises:
            UserError: There are no files.
        """
        return self._parts

    @functools.cached_property
    def _parts(self) -> list[tuple[FileSpan, ...]]:
        return gather((file.path, self._spans(file)) for file in self._listing)

    def _spans(self, file: Found) -> list[Span]:
        """The spans of a file; one that cannot be read is one, and `read` tells what is wrong with it."""
        path = file.path
        try:
            return self._format(path).spans(file.n_bytes, lambda: self._open(path), path, self.config)
        except (UserError, OSError):
            return [Span(0, 1, 1)]

    def read(self, part: tuple[FileSpan, ...], skipped: dict[str, int]) -> Iterator[Document]:
        """The documents of some spans.

        Raises:
            UnreadableError: Files are gone, cut, damaged or not text: all are named, after the last document.
        """
        if (kept := self._documents.get(part)) is not None:
            documents, left_out = kept
            yield from documents
        else:
            documents, left_out = [], {}
            n_characters = 0
            for document in read_spans(part, self._open, str, self._format, self.config, left_out):
                n_characters += len(document.text)
                if self._is_kept and n_characters <= KEPT_BYTES:  # a packed file may unpack to any size
                    documents.append(document)
                yield document
            if self._is_kept and n_characters <= KEPT_BYTES:
                self._documents[part] = documents, left_out
        for reason, count in left_out.items():
            skipped[reason] = skipped.get(reason, 0) + count

    @functools.cached_property
    def _is_kept(self) -> bool:
        return self.n_bytes() <= KEPT_BYTES and all(file.is_regular for file in self._listing)

    def _open(self, path: str) -> BinaryIO:
        """A file, or what was read of it before.

        Raises:
            UserError: It cannot be read.
        """
        if not self._is_kept:
            return _opened(path)
        if path not in self._contents:
            with _opened(path) as file:
                self._contents[path] = file.read()
        return io.BytesIO(self._contents[path])

    def _sample(self, path: str) -> bytes:
        try:
            with self._open(path) as file:
                return sample_digest(file, whole=WHOLE_BYTES)
        except (UserError, OSError):
            return b"cannot be read"  # which `read` tells, together with all else that cannot


def _opened(name: str) -> BinaryIO:
    with reading(name):
        return open(name, "rb")  # noqa: PTH123


@functools.cache
def _warn_once(line: str) -> None:
    """Warn: one command may list a folder several times, for its size, its alphabet and its tokens, in each rank."""
    if speaks():
        warn(line)
