"""Plain UTF-8 text: a file is one document, or several with a separator between them.

A large file is read in spans, cut at ends of documents where a separator tells them, else at ends of lines; a document
that goes on in the next span says so.
"""

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.formats.decode import decode_text
from groundup.formats.document import Document
from groundup.formats.spans import PART_BYTES, Span

DOCUMENT_BYTES = PART_BYTES // 2
"""Longest piece of a document: its characters, four bytes each at worst, its ids and its bytes are held at once."""
BEGINNING = 1 << 20
"""Bytes by which pieces of a document are known; two documents that begin so much alike are taken for equal."""
LINE = 1 << 16
"""How far from a cut the end of a line is looked for."""


class Separator:
    """What stands between documents, in bytes in which lines may end in any way.

    Args:
        between: The same in text whose lines end as ours; nothing where a file is one document, and none is looked for.
    """

    def __init__(self, between: str) -> None:
        self.plain, any_end = between.encode(), rb"(?:\r\n|\r(?!\n)|\n)"
        self._pattern = re.compile(re.escape(self.plain).replace(b"\\\n", any_end))
        self.size = len(self.plain)
        self.longest = self.size + between.count("\n")

    def ends(self, data: bytes) -> Iterator[int]:
        """Where it ends, wherever it stands, also where one begins before another has ended."""
        if b"\r" not in data:  # the same, five times as fast
            at = data.find(self.plain)
            while at >= 0:
                yield at + self.size
                at = data.find(self.plain, at + 1)
            return
        found = self._pattern.search(data)
        while found:
            yield found.end()
            found = self._pattern.search(data, found.start() + 1)

    def last_end(self, data: bytes) -> int:
        """Where the last one ends of those that a text is split at; 0 without any."""
        return max((found.end() for found in self._pattern.finditer(data)), default=0) if self.plain else 0


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
    size, separator = file.seek(0, 2), Separator(config.between)
    if start > 0 or stop < size:
        start, stop = (_cut(file, min(at, size), separator) for at in span)
    file.seek(start)
    data = file.read(stop - start)
    if data or not size:
        first, last = _beginning(file, start, separator), _beginning(file, stop, separator) if stop < size else ""
        try:
            text = decode_text(data, name, start)
        except UserError:
            if first:  # where the file is left out, no other document goes on from what was read of it
                yield Document("", beginning=first)
            raise
        yield from _documents(text, config.between, first, last)


def read_stream(chunks: Iterable[bytes], name: str, config: ReadConfig, skipped: dict[str, int]) -> Iterator[Document]:
    """The documents of a file that can only be read from its beginning.

    Raises:
        UserError: As `read`.
    """
    separator = Separator(config.between)
    held, first, at = b"", "", 0
    for chunk in chunks:
        held += chunk
        if len(held) < DOCUMENT_BYTES:
            continue
        if cut := separator.last_end(held.removesuffix(b"\r")):  # with what comes it may be one end of a line
            last = ""
        else:
            longest = separator.longest if b"\r" in held else separator.size
            end = len(held) - max(0, longest - 1)  # behind it a separator may have begun
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


def _beginning(file: BinaryIO, at: int, separator: Separator) -> str:
    """How the document begins that goes on at a cut; nothing where none does."""
    end = at
    while separator.plain and end:
        place = max(0, end - LINE)
        file.seek(place)
        window = file.read(min(at, end + separator.longest - 1) - place)
        if found := max(separator.ends(window), default=0):
            end = place + found
            break
        end = place
    start = end if separator.plain else 0
    if start == at:
        return ""
    file.seek(start)
    return _known_by(file.read(BEGINNING))


def _cut(file: BinaryIO, at: int, separator: Separator) -> int:
    """Where a cut near `at` falls: after a separator, or a line, or before a character where lines are long."""
    if at == 0:
        return 0
    if separator.plain and (end := _after_separator(file, at, separator)):
        return end
    file.seek(at - 1)
    window = file.read(LINE)
    if end := window.find(b"\n") + 1:
        return at - 1 + end
    # Bytes 10xxxxxx go on with a character; no character has more than three of them.
    rest = window[1:5]
    return at + next((k for k, byte in enumerate(rest) if byte & 0xC0 != 0x80), len(rest))


def _after_separator(file: BinaryIO, at: int, separator: Separator) -> int:
    """The end of the first separator that ends at or after `at`; without one, the file's end, or 0 if that is far."""
    place = max(0, at - separator.longest)
    file.seek(place)
    window = file.read(max(0, at - separator.size) - place)
    while file.tell() - at < DOCUMENT_BYTES + separator.size - 1:
        chunk = file.read(LINE)
        while chunk.endswith(b"\r") and (more := file.read(1)):  # with it, it may be one end of a line
            chunk += more
        if not chunk:
            return place + len(window)
        window += chunk
        if found := next((end for end in separator.ends(window) if place + end >= at), 0):
            return place + found
        kept = min(len(window), separator.longest - 1)
        place, window = place + len(window) - kept, window[len(window) - kept :]
    return 0


def _begun(data: bytes) -> int:
    """Bytes at the end that begin a character, or the end of a line, and may not end it."""
    if data.endswith(b"\r"):
        return 1
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            return back if back < (2 if byte >= 0xC0 else 1) + (byte >= 0xE0) + (byte >= 0xF0) else 0
    return 0
