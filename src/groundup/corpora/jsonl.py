"""One JSON object per line, plain or compressed by gzip or Zstandard.

A plain file is cut into ranges of bytes: a line belongs to the range in which it begins. A compressed file can only be
read from its beginning, so it is one span; write many files of 100 MB, not one of 100 GB.
"""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from groundup.config.errors import UserError
from groundup.corpora.pieces import Span, byte_spans

CHUNK = 1 << 20
MAX_LINE = 32 << 20
"""Longest line that is read. Longer ones are counted and left out: memory stays flat."""
COMPRESSION = 4
"""About how much larger text is than its compressed form."""


def plain_spans(file: BinaryIO, name: str, column: str) -> list[Span]:
    """Ranges of bytes."""
    return byte_spans(file.seek(0, 2))


def whole_span(file: BinaryIO, name: str, column: str) -> list[Span]:
    """The file as one."""
    return [Span(0, 1, COMPRESSION * file.seek(0, 2))]


def read_plain(file: BinaryIO, name: str, span: tuple[int, int], column: str, skipped: dict[str, int]) -> Iterator[str]:
    """The texts of the lines that begin in bytes [start, stop).

    Args:
        file: Open, of bytes.
        name: Of the file, for messages.
        span: (start, stop).
        column: Key of the text.
        skipped: Lines that have no text are counted here, by reason and file.

    Raises:
        UserError: No line has the column.
    """
    start, stop = span
    # Start one byte early. If that byte is a line's end, the first "line" is empty and is skipped below; if not, the
    # first line is the tail of one that the span before reads.
    begin = max(0, start - 1)
    file.seek(begin)
    lines = split_lines(iter(lambda: file.read(CHUNK), b""), begin)
    if start:
        next(lines, None)
    yield from _texts(_until(lines, stop), name, column, skipped)


def _until(lines: Iterator[tuple[int, bytes | None]], stop: int) -> Iterator[bytes | None]:
    for at, line in lines:
        if at >= stop:
            return
        yield line


def read_gzip(file: BinaryIO, name: str, span: tuple[int, int], column: str, skipped: dict[str, int]) -> Iterator[str]:
    """The texts of a `.jsonl.gz`; see `read_plain`.

    Raises:
        UserError: The file is cut or damaged, or no line has the column.
    """
    file.seek(0)
    yield from _texts(_whole_lines(_gunzipped(file), name), name, column, skipped)


def _gunzipped(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        while chunk := unpacked.read(CHUNK):
            yield chunk


def read_zstd(file: BinaryIO, name: str, span: tuple[int, int], column: str, skipped: dict[str, int]) -> Iterator[str]:
    """The texts of a `.jsonl.zst`; see `read_plain`.

    Raises:
        UserError: The file is cut or damaged, no line has the column, or `zstandard` is not installed.
    """
    file.seek(0)
    yield from _texts(_whole_lines(_unzstd(file), name), name, column, skipped)


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise UserError("reading .zst needs zstandard: pip install 'groundup[data]'") from None
    unpacker = zstandard.ZstdDecompressor()
    # Not stream_reader: at the end of a file that was cut, it says nothing.
    frame = unpacker.decompressobj()
    try:
        while chunk := file.read(CHUNK // 8):
            while chunk:
                if frame.eof:
                    frame = unpacker.decompressobj()
                yield frame.decompress(chunk)
                chunk = frame.unused_data
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from error
    if not frame.eof:
        raise EOFError


def _whole_lines(chunks: Iterable[bytes], name: str) -> Iterator[bytes | None]:
    """Lines of an unpacked stream; damage is told with the line where it shows."""
    count = 0
    try:
        for _, line in split_lines(chunks, 0):
            count += 1
            yield line
    except EOFError:
        raise UserError(f"{name} is cut: its compressed data ends early, after line {count}; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{name} is damaged after line {count}: {error}") from error


def split_lines(chunks: Iterable[bytes], at: int) -> Iterator[tuple[int, bytes | None]]:
    """(offset, line without its end) for every line; None for a line longer than MAX_LINE.

    Args:
        chunks: The bytes.
        at: Offset of the first of them.
    """
    held: list[bytes] = []
    size = 0  # of the line that `held` begins, even where it is too long to be held

    def hold(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        if size > MAX_LINE:
            held.clear()
        elif piece:
            held.append(piece)

    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            hold(piece)
            yield at, None if size > MAX_LINE else b"".join(held)
            at += size + 1
            held.clear()
            size = 0
        hold(rest)
    if size:
        yield at, None if size > MAX_LINE else b"".join(held)


def _texts(lines: Iterator[bytes | None], name: str, column: str, skipped: dict[str, int]) -> Iterator[str]:
    records = 0
    without = 0
    keys: list[str] = []
    short = name.rsplit("/", 1)[-1]

    def skip(reason: str) -> None:
        skipped[f"{reason} in {short}"] = skipped.get(f"{reason} in {short}", 0) + 1

    for line in lines:
        if line is None:
            skip(f"line longer than {MAX_LINE >> 20} MB")
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            skip("line that is not JSON")
            continue
        if not isinstance(record, dict):
            skip("line that is not a JSON object")
            continue
        records += 1
        if isinstance(text := record.get(column), str):
            yield text
        elif column in record:
            skip(f"{column} that is null" if text is None else f"{column} that is not a string")
        else:
            without += 1
            keys = keys or sorted(record)
            skip(f"record without {column}")
    if records and without == records:
        known = ", ".join(keys[:8]) or "none"
        raise UserError(f"{name}: no record has the key {column!r}, its keys are {known}; choose with --text-column")
