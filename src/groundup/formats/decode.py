"""Bytes to text: UTF-8, one kind of line end, and a name for what is something else."""

import codecs
import io
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from groundup.config.errors import UserError, reading
from groundup.config.limits import TEXT_BYTES
from groundup.formats.encodings import convert, likely_encoding, refuse_ascii_encodings, wide_encoding

_MAGIC = {
    b"\x1f\x8b": ("compressed by gzip", "name it with .gz at the end"),
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", "name it with .zst at the end"),
    b"%PDF-": ("a PDF", "take its text out first: pdftotext {name} NEW"),
    b"PK\x03\x04": ("a zip archive, as .docx, .epub and .xlsx are", "take the text out first"),
    b"PAR1": ("parquet", "name it with .parquet at the end"),
}


def line_ends(text: str) -> str:
    r"""A text with `\n` at the end of every line: the form of all that is learned from, and of prompts."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_text(path: Path) -> str:
    """A small file of UTF-8 text as `decode_text` gives it.

    Raises:
        UserError: Not readable, too large, binary, or not UTF-8.
    """
    with reading(path), path.open("rb") as file:
        data = file.read(TEXT_BYTES.value + 1)  # it may be a pipe, and a device never ends
    TEXT_BYTES.check(len(data), str(path))
    return decode_text(data, str(path))


def decode_text(data: bytes, name: str, at: int = 0) -> str:
    r"""UTF-8 bytes as text, line ends as `\n`, without a byte order mark.

    Args:
        data: The bytes.
        name: Of the file, for messages.
        at: Where in the file they begin.

    Raises:
        UserError: Binary, or not UTF-8; the message says where, and what it is instead.
    """
    if b"\0" in data:
        raise _refusal(data, name, at, data.index(0))
    refuse_ascii_encodings(data, name)
    try:
        return line_ends(data.decode("utf-8" if at else "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _refusal(data, name, at, error.start) from None


def text_chunks(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """The same, as a stream of pieces of any size.

    Raises:
        UserError: As `decode_text`.
    """
    bytes_to_text = codecs.getincrementaldecoder("utf-8-sig")()
    decoder = io.IncrementalNewlineDecoder(bytes_to_text, translate=True)
    at = 0
    held = b""  # bytes of a character that the last chunk began
    for chunk in chunks:
        refuse_ascii_encodings(chunk, name)
        try:
            if b"\0" in chunk:
                raise ValueError
            yield decoder.decode(chunk)
        except ValueError:
            decode_text(held + chunk, name, at - len(held))
            raise
        at += len(chunk)
        held = bytes_to_text.getstate()[0]
    if held:
        raise _refusal(held, name, at - len(held), 0)
    yield decoder.decode(b"", final=True)


def _refusal(data: bytes, name: str, at: int, bad: int) -> UserError:
    """Why bytes are no UTF-8 text, and what to do that helps."""
    if at == 0:
        for magic, (what, advice) in _MAGIC.items():
            if data.startswith(magic):
                return UserError(f"{name} is {what}, not text: {advice.format(name=shlex.quote(name))}")
        if encoding := wide_encoding(data):
            return convert(f"{name} is {encoding}", encoding, name)
    byte = f"byte {at + bad} is 0x{data[bad]:02x}"
    if b"\0" in data:
        return UserError(f"{name} is not text: byte {at + data.index(0)} is zero")
    good = _utf8_characters(data)
    wrong = data.decode(errors="replace").count("\ufffd") - data.count(b"\xef\xbf\xbd")
    if good > 2 * wrong or _is_cut(data, bad):
        return UserError(
            f"{name} is UTF-8 with {wrong:,} damaged places, the first at {byte}; leave them out:"
            f" iconv -c -f UTF-8 -t UTF-8 {shlex.quote(name)} > NEW"
        )
    encoding, seen = likely_encoding(data)
    if not encoding:
        return UserError(
            f"{name} is not UTF-8: {byte}; convert it from the encoding that it was saved in, which its bytes do not"
            f" tell: iconv -f ENCODING -t UTF-8 {shlex.quote(name)} > NEW"
        )
    called = encoding.replace("WINDOWS", "Windows")
    return convert(
        f"{name} is not UTF-8 ({byte}); as {called} it reads {seen!r}, and where that is wrong, another encoding"
        " belongs behind -f",
        encoding,
        name,
    )


def _utf8_characters(data: bytes) -> int:
    """Characters beyond ASCII that are whole."""
    return sum(1 for character in data.decode(errors="ignore") if character > "\x7f")


def _is_cut(data: bytes, bad: int) -> bool:
    """Whether the only fault is that the end cuts a character of which two bytes or three are there."""
    return 2 <= len(data) - bad <= 3 and _decodes(data[:bad], "utf-8") and _begins_character(data[bad:])


def _begins_character(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return not decoder.decode(data)
    except UnicodeDecodeError:
        return False


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
