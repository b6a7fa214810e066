"""JSON: one object per line, or arrays of objects, one after the other.

A plain file of lines is cut into ranges of bytes: a line belongs to the range in which it begins. A compressed file and
an array can only be read from their beginning, so each is one span; write many files of 100 MB, not one of 100 GB.
"""

import itertools
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.config.limits import LINE_BYTES
from groundup.formats.decode import decode_text, text_chunks
from groundup.formats.document import Document, count
from groundup.formats.encodings import refuse_ascii_encodings
from groundup.formats.records import Records

CHUNK = 1 << 20
HEAD = 1 << 12
"""Bytes by which lines of strings are known, whose texts have no key."""
_BLANK = re.compile(r"\s*")


def read_plain(
    file: BinaryIO, name: str, span: tuple[int, int], config: ReadConfig, skipped: dict[str, int]
) -> Iterator[Document]:
    """The texts of the lines that begin in bytes [start, stop).

    Args:
        file: Open, of bytes.
        name: Of the file, for messages.
        span: (start, stop).
        config: Names the key of the text.
        skipped: Lines that have no text are counted here, by reason and file.

    Raises:
        UserError: No line is JSON, or none has the key.
    """
    start, stop = span
    # Start one byte early. If that byte is a line's end, the first "line" is empty and is skipped below; if not, the
    # first line is the tail of one that the span before reads.
    begin = max(0, start - 1)
    file.seek(0)
    head = file.read(HEAD)
    file.seek(begin)
    lines = split_lines(_checked(iter(lambda: file.read(CHUNK), b""), name), begin)
    if start:
        next(lines, None)
    yield from _texts(_until(lines, stop), head, name, config, skipped)


def _until(lines: Iterator[tuple[int, bytes | None]], stop: int) -> Iterator[bytes | None]:
    for at, line in lines:
        if at >= stop:
            return
        yield line


def read_lines(chunks: Iterable[bytes], name: str, config: ReadConfig, skipped: dict[str, int]) -> Iterator[Document]:
    """The texts of all lines of a stream; see `read_plain`.

    Raises:
        UserError: As `read_plain`.
    """
    # A few packed bytes can become millions of empty lines.
    head, whole = _head(chunks)
    full = (chunk if chunk.strip(b"\n") else b"\n" for chunk in whole)
    yield from _texts((line for _, line in split_lines(_checked(full, name), 0)), head, name, config, skipped)


def _checked(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The same chunks, unless they are sound JSON whose texts are in an encoding of ASCII bytes."""
    for chunk in chunks:
        refuse_ascii_encodings(chunk, name)
        yield chunk


def read_json(chunks: Iterable[bytes], name: str, config: ReadConfig, skipped: dict[str, int]) -> Iterator[Document]:
    """The texts of arrays of objects or strings, or of lines where the file does not begin with a bracket.

    Raises:
        UserError: An array is not JSON, something else stands behind it, or no object has the key.
    """
    head, whole = _head(chunks)
    if _first(head) in (b"{", b'"'):
        yield from read_lines(whole, name, config, skipped)
        return
    records = Records(name, config, skipped, strings=True)
    for value in _items(text_chunks(whole, name), name):
        yield from records.take(value)
    records.finish()


def _head(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first chunk with something in it, and all chunks from it on."""
    rest = iter(chunks)
    head = next((chunk for chunk in rest if _first(chunk)), b"")
    return head, itertools.chain([head], rest)


def _first(head: bytes) -> bytes:
    """The first byte that is neither white space nor of a byte order mark."""
    return head.lstrip(b" \t\r\n\xef\xbb\xbf")[:1]


def _items(chunks: Iterator[str], name: str) -> Iterator[Any]:
    """The items of JSON arrays, one after the other.

    Raises:
        UserError: They are none; the item is named by its number, from 1.
    """
    decode, read = json.JSONDecoder().raw_decode, _Read(chunks)
    if not read.passes("["):
        raise UserError(f"{name} is neither a JSON array nor one JSON object per line")
    for number in itertools.count(1):
        while read.left < CHUNK and read.more():
            pass
        if number > 1:
            read.passes(",")
        while read.passes("]"):
            if not read.passes("["):
                if read.left:
                    raise UserError(f"{name}: behind the end of its array stands {read.text[read.at :][:40]!r}")
                return
        while True:
            try:
                value, read.at = decode(read.text, read.at)
                break
            except (ValueError, RecursionError) as error:
                if read.left >= LINE_BYTES.value:
                    raise LINE_BYTES.passed(f"{name}: item {number}") from None
                whole = not read.at  # else its place is not counted from where the item begins
                if not read.more() and whole:
                    raise UserError(f"{name} is not a JSON array: item {number}: {error}") from None
                read.cut()
        yield value


class _Read:
    """Text that comes in chunks, and how far it was read. What was read is cut off seldom: that copies the rest."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self.text, self.at = "", 0

    @property
    def left(self) -> int:
        """Characters that were not read yet."""
        return len(self.text) - self.at

    def cut(self) -> None:
        """Forget what was read."""
        self.text, self.at = self.text[self.at :], 0

    def more(self) -> bool:
        """Add as much again as is left, so that the work stays in proportion to the length; whether there was any."""
        pieces: list[str] = []
        size = 0
        for chunk in self._chunks:
            pieces.append(chunk)
            size += len(chunk)
            if size >= max(1, self.left):
                break
        if size:
            self.text, self.at = "".join([self.text[self.at :], *pieces]), 0
        return size > 0

    def passes(self, sign: str) -> bool:
        """Go past white space, and past a sign if it is next, with white space behind it; whether it was."""
        self._skip_blank()
        if found := self.text.startswith(sign, self.at):
            self.at += len(sign)
            self._skip_blank()
        return found

    def _skip_blank(self) -> None:
        while True:
            self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self.left or not self.more():
                return


def split_lines(chunks: Iterable[bytes], at: int) -> Iterator[tuple[int, bytes | None]]:
    """(offset, line without its end) for every line; None for one longer than LINE_BYTES, so that memory stays flat.

    Args:
        chunks: The bytes.
        at: Offset of the first of them.
    """
    most = LINE_BYTES.value
    held: list[bytes] = []
    size = 0  # of the line that `held` begins, even where it is too long to be held

    def hold(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        if size > most:
            held.clear()
        elif piece:
            held.append(piece)

    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            hold(piece)
            yield at, None if size > most else b"".join(held)
            at += size + 1
            held.clear()
            size = 0
        hold(rest)
    if size:
        yield at, None if size > most else b"".join(held)


def _texts(
    lines: Iterator[bytes | None], head: bytes, name: str, config: ReadConfig, skipped: dict[str, int]
) -> Iterator[Document]:
    """The texts of lines; strings are texts where the head of the file begins with one."""
    short = name.rsplit("/", 1)[-1]
    records = Records(name, config, skipped, strings=_first(head) == b'"')
    bad = b""
    sound = False
    for line in lines:
        if line is None:
            count(skipped, f"line longer than {LINE_BYTES.value:,} bytes ({LINE_BYTES.variable}) in {short}")
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            what = "UTF-8" if isinstance(error, UnicodeDecodeError) else "JSON"
            count(skipped, f"line that is not {what} in {short}")
            bad = bad or line
            continue
        sound = True
        yield from records.take(value)
    if bad and not sound:
        decode_text(bad, name)
        many = (
            f"; where objects span lines: jq -c . {shlex.quote(name)} > NEW.jsonl" if bad.lstrip()[:1] == b"{" else ""
        )
        raise UserError(
            f"{name} holds no line of JSON; its first begins with {bad.decode(errors='replace')[:40]!r}{many}"
        )
    records.finish()
