"""Plain UTF-8 text: a file is one document, or several with a separator between them.

A large file is read in spans, cut at ends of documents where a separator tells them, else at ends of lines; a document
that goes on in the next span says so.
"""

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from groundup.config.data import ReadConfig
from groundup.formats.decode import decode_text
from groundup.formats.document import Document
from groundup.formats.spans import PART_BYTES, Span

DOCUMENT_BYTES = PART_BYTES // 2
"""Longest piece of a document: its characters, four bytes each at worst, its ids and its bytes are held at once."""
BEGINNING = 1 << 20
"""Bytes by which pieces of a document are known; two documents that begin so much alike are taken for equal."""
LINE = 1 << 16
"""How far from a cut the end of a line is looked for."""


def spans(size: int) -> list[Span]:
    """Ranges of bytes of a file of so many."""
    starts = range(0, max(size, 1), DOCUMENT_BYTES)
    return [Span(start, min(start + DOCUMENT_BYTES, size), min(DOCUMENT_BYTES, size - start)) for start in starts]


def read(
    file: BinaryIO, name: str, span: tuple[int, int], config: ReadConfig, skipped: dict[str, int]
) -> Iterator[Document]:
    """The documents from the first cut at or after byte `start` to the first at or after `stop`.

    Raises:
        UserError: Binary, or not UTF-8; the message says where.
    """
    start, stop = span
    size, separator = file.seek(0, 2), config.between.encode()
    if start > 0 or stop < size:
        start, stop = (_cut(file, min(at, size), separator) for at in span)
    file.seek(start)
    data = file.read(stop - start)
    if data or not size:
        first, last = _beginning(file, start, separator), _beginning(file, stop, separator) if stop < size else ""
        yield from _documents(decode_text(data, name, start), config.between, first, last)


def read_stream(chunks: Iterable[bytes], name: str, config: ReadConfig, skipped: dict[str, int]) -> Iterator[Document]:
    """The documents of a file that can only be read from its beginning.

    Raises:
        UserError: As `read`.
    """
    separator = config.between.encode()
    held, first, at = b"", "", 0
    for chunk in chunks:
        held += chunk
        if len(held) < DOCUMENT_BYTES:
            continue
        if separator and separator in held:
            cut, last = len(held) - len(held.split(separator)[-1]), ""
        else:
            end = len(held) - max(0, len(separator) - 1)  # behind it a separator may have begun
            cut, last = held.rfind(b"\n", 0, end) + 1 or end - _begun(held[:end]), first or _known_by(held)
        yield from _documents(decode_text(held[:cut], name, at), config.between, first, last)
        held, first, at = held[cut:], last, at + cut
    yield from _documents(decode_text(held, name, at), config.between, first, "")


def _documents(text: str, separator: str, first: str, last: str) -> Iterator[Document]:
    """Cut a text at its separators.

    Args:
        text: The text.
        separator: Between documents; nothing where there is one.
        first: How the document begins that the text goes on with; nothing where it begins with one.
        last: That of the document which goes on behind it; nothing where it ends with one.
    """
    if not separator:
        if text or not last:
            yield Document(text, ends=not last, beginning=first or last)
        return
    *whole, rest = text.split(separator)
    for document in whole:
        if (text := _trimmed(document, goes_on=bool(first))) or first:
            yield Document(text, beginning=first)
        first = ""
    text = rest if last else _trimmed(rest, goes_on=bool(first))
    if text or (first and not last):
        yield Document(text, ends=not last, beginning=first or last)


def _trimmed(document: str, *, goes_on: bool) -> str:
    """A document without the line ends that only set the separator apart, and nothing where it is blank."""
    if goes_on:
        return document.rstrip("\n")
    return document.strip("\n") if document.strip() else ""


def _known_by(data: bytes) -> str:
    return data[:BEGINNING].decode(errors="ignore")


def _beginning(file: BinaryIO, at: int, separator: bytes) -> str:
    """How the document begins that goes on at a cut; nothing where none does."""
    end = at
    while separator and end:
        place = max(0, end - LINE)
        file.seek(place)
        window = file.read(min(at, end + len(separator) - 1) - place)
        if (found := window.rfind(separator)) >= 0:
            end = place + found + len(separator)
            break
        end = place
    start = end if separator else 0
    if start == at:
        return ""
    file.seek(start)
    return _known_by(file.read(BEGINNING))


def _cut(file: BinaryIO, at: int, separator: bytes) -> int:
    """Where a cut near `at` falls: after a separator, or a line, or before a character where lines are long."""
    if at == 0:
        return 0
    if separator and (end := _after_separator(file, at, separator)):
        return end
    file.seek(at - 1)
    window = file.read(LINE)
    if end := window.find(b"\n") + 1:
        return at - 1 + end
    # Bytes 10xxxxxx go on with a character; no character has more than three of them.
    rest = window[1:5]
    return at + next((k for k, byte in enumerate(rest) if byte & 0xC0 != 0x80), len(rest))


def _after_separator(file: BinaryIO, at: int, separator: bytes) -> int:
    """The end of the first separator that ends at or after `at`; without one, the file's end, or 0 if that is far."""
    place = max(0, at - len(separator))
    file.seek(place)
    window = b""
    while place - at < DOCUMENT_BYTES:
        chunk = file.read(LINE)
        if not chunk:
            return place + len(window)
        window += chunk
        if (found := window.find(separator)) >= 0:
            return place + found + len(separator)
        kept = min(len(window), len(separator) - 1)
        place, window = place + len(window) - kept, window[len(window) - kept :]
    return 0


def _begun(data: bytes) -> int:
    """Bytes at the end that begin a character and do not end it."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            return back if back < (2 if byte >= 0xC0 else 1) + (byte >= 0xE0) + (byte >= 0xF0) else 0
    return 0
