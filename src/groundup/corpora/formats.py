"""File formats by suffix: how a file of documents is cut into spans, and how a span is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from groundup.config.errors import UserError
from groundup.corpora import jsonl, parquet, plain_text
from groundup.corpora.pieces import Span


@dataclass(frozen=True, slots=True)
class Format:
    """One format, as functions of an open file of bytes."""

    spans: Callable[[BinaryIO, str, str], list[Span]]
    """(file, name, text column) to the spans of the file."""
    read: Callable[[BinaryIO, str, tuple[int, int], str, dict[str, int]], Iterator[str]]
    """(file, name, span, text column, skipped) to texts."""


_JSONL = Format(jsonl.plain_spans, jsonl.read_plain)
_GZIP = Format(jsonl.whole_span, jsonl.read_gzip)
_ZSTD = Format(jsonl.whole_span, jsonl.read_zstd)
_TEXT = Format(plain_text.spans, plain_text.read)

FORMATS = {
    ".txt": _TEXT,
    ".md": _TEXT,
    ".jsonl": _JSONL,
    ".jsonl.gz": _GZIP,
    ".jsonl.zst": _ZSTD,
    ".parquet": Format(parquet.spans, parquet.read),
    # One object per line, too, by another name; without compression .json is most often something else.
    ".json.gz": _GZIP,
    ".json.zst": _ZSTD,
}


def has_format(name: str) -> bool:
    """Whether a file can be read, by its name."""
    return name.lower().endswith(tuple(FORMATS))


def format_of(name: str) -> Format:
    """The format of a file.

    Raises:
        UserError: Its suffix is none of ours.
    """
    for suffix, kind in FORMATS.items():
        if name.lower().endswith(suffix):
            return kind
    raise UserError(f"cannot tell the format of {name}; files end with {', '.join(FORMATS)}")
