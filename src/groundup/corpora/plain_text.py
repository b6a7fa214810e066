"""Plain UTF-8 text: a file is one document; a large one is cut at ends of lines into one document per span."""

from collections.abc import Iterator
from typing import BinaryIO

from groundup.corpora.pieces import PART_BYTES, Span
from groundup.corpora.text_files import decode_text

DOCUMENT_BYTES = PART_BYTES // 2
"""Longest document: its characters, four bytes each at worst, its ids and its bytes are in memory at once."""
LINE = 1 << 16
"""How far from a cut the end of a line is looked for."""


def spans(file: BinaryIO, name: str, column: str) -> list[Span]:
    """Ranges of bytes."""
    size = file.seek(0, 2)
    starts = range(0, max(size, 1), DOCUMENT_BYTES)
    return [Span(start, min(start + DOCUMENT_BYTES, size), min(DOCUMENT_BYTES, size - start)) for start in starts]


def read(file: BinaryIO, name: str, span: tuple[int, int], column: str, skipped: dict[str, int]) -> Iterator[str]:
    """The text from the first line that begins at or after byte `start` to the first at or after `stop`.

    Raises:
        UserError: Binary, or not UTF-8; the message says where.
    """
    start, stop = (_cut(file, at) for at in span)
    file.seek(start)
    yield decode_text(file.read(stop - start), name, start)


def _cut(file: BinaryIO, at: int) -> int:
    """Where a cut near `at` falls: after the end of a line, or before a character where lines are long."""
    if at == 0:
        return 0
    file.seek(at - 1)
    window = file.read(LINE)
    if end := window.find(b"\n") + 1:
        return at - 1 + end
    # Bytes 10xxxxxx go on with a character; no character has more than three of them.
    rest = window[1:5]
    return at + next((k for k, byte in enumerate(rest) if byte & 0xC0 != 0x80), len(rest))
