"""Bytes to text: UTF-8, one kind of line end, and a name for what is something else."""

import codecs
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from groundup.config.errors import UserError
from groundup.config.limits import TEXT_BYTES

_MAGIC = {
    b"\x1f\x8b": ("compressed by gzip", "name it with .gz at the end"),
    b"\x28\xb5\x2f\xfd": ("compressed by Zstandard", "name it with .zst at the end"),
    b"%PDF-": ("a PDF", "take its text out first: pdftotext {name} NEW"),
    b"PK\x03\x04": ("a zip archive, as .docx, .epub and .xlsx are", "take the text out first"),
    b"PAR1": ("parquet", "name it with .parquet at the end"),
}
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks; UTF-32's first, for one begins like UTF-16's."""
_RARE = frozenset(range(0x80, 0xA0)) - frozenset(b"\x80\x85\x91\x92\x93\x94\x95\x96\x97\x99")
"""What Windows-1252 has between the euro and the dashes: seldom in its texts, letters in those of old Macs and DOS."""
_PROBE = 1 << 16
_SHIFT = b"\x1b$"
_SHIFTED = (
    (b"\x1b$)C", "ISO-2022-KR", "iso2022_kr"),
    (b"\x1b$)A", "ISO-2022-CN", ""),
    (b"\x1b$)G", "ISO-2022-CN", ""),
    (_SHIFT, "ISO-2022-JP", "iso2022_jp"),
    (_SHIFT, "ISO-2022-JP-2", "iso2022_jp_2"),
    (_SHIFT, "ISO-2022-JP-3", "iso2022_jp_3"),
    (_SHIFT, "ISO-2022-JP-3", "iso2022_jp_ext"),
)
"""Encodings whose bytes are all ASCII: the escape after which pairs of bytes stand for one character, the name that
iconv knows, and Python's codec, of which ISO-2022-CN has none."""
_UTF_7 = re.compile(rb"\+[A-Za-z0-9+/]{3,}")
"""What stands for characters beyond ASCII in UTF-7, where a plus sign itself is `+-`."""
_UTF_7_LEAST = 3


def line_ends(text: str) -> str:
    r"""A text with `\n` at the end of every line: the form of all that is learned from, and of prompts."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_text(path: Path) -> str:
    """A small file of UTF-8 text as `decode_text` gives it.

    Raises:
        UserError: Not readable, too large, binary, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(TEXT_BYTES.value + 1)  # it may be a pipe, and a device never ends
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
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
    _refuse_shifts(data, name)
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
        _refuse_shifts(chunk, name)
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


def _refuse_shifts(data: bytes, name: str) -> None:
    """Refuse text of ISO 2022 and UTF-7, which are made of ASCII bytes; escapes of terminals, as for colors, are text.

    Raises:
        UserError: It is; the message names it.
    """
    if (_SHIFT not in data and b"+" not in data) or not data.isascii():
        return
    if _is_utf_7(data):
        raise _convert(f"{name} is UTF-7", "UTF-7", name)
    for escape, encoding, codec in _SHIFTED:
        if escape in data and _is_shifted(data, codec):
            raise _convert(f"{name} is {encoding}", encoding, name)


def _is_shifted(data: bytes, codec: str) -> bool:
    """Whether it decodes, to more than ASCII; the end may cut a character."""
    try:
        return not codec or not codecs.getincrementaldecoder(codec)().decode(data).isascii()
    except UnicodeDecodeError:
        return False


def _is_utf_7(data: bytes) -> bool:
    """Whether each plus sign begins characters beyond ASCII, some times: those of `a + b`, `C++` and `+49` do not."""
    if len(_UTF_7.findall(data)) < _UTF_7_LEAST:
        return False
    try:
        text = codecs.getincrementaldecoder("utf-7")().decode(data)
    except UnicodeDecodeError:
        return False
    others = [character for character in text if character > "\x7f"]
    return len(others) >= _UTF_7_LEAST and all(unicodedata.category(other)[0] in "LMNPSZ" for other in others)


def _refusal(data: bytes, name: str, at: int, bad: int) -> UserError:
    """Why bytes are no UTF-8 text, and what to do that helps."""
    if at == 0:
        for magic, (what, advice) in _MAGIC.items():
            if data.startswith(magic):
                return UserError(f"{name} is {what}, not text: {advice.format(name=name)}")
        if encoding := _unicode_of(data):
            return _convert(f"{name} is {encoding}", encoding, name)
    byte = f"byte {at + bad} is 0x{data[bad]:02x}"
    if b"\0" in data:
        return UserError(f"{name} is not text: byte {at + data.index(0)} is zero")
    good = _utf8_characters(data)
    wrong = data.decode(errors="replace").count("\ufffd") - data.count(b"\xef\xbf\xbd")
    if good > 2 * wrong or _is_cut(data, bad):
        left = "iconv -c -f UTF-8 -t UTF-8"
        return UserError(
            f"{name} is UTF-8 with {wrong:,} damaged places, the first at {byte}; leave them out: {left} {name} > NEW"
        )
    high = [b for b in data[:_PROBE] if b > 0x7F]
    rare = sum(1 for b in high if b in _RARE)
    if _decodes(data, "cp1252") and len(high) * 4 < min(len(data), _PROBE) and rare * 2 < len(high):
        return _convert(f"{name} is not UTF-8 ({byte}), it reads as Windows-1252", "WINDOWS-1252", name)
    return UserError(
        f"{name} is not UTF-8: {byte}; convert it from the encoding that it was saved in, which its bytes do not tell:"
        f" iconv -f ENCODING -t UTF-8 {name} > NEW"
    )


def _convert(what: str, encoding: str, name: str) -> UserError:
    return UserError(f"{what}; convert it first: iconv -f {encoding} -t UTF-8 {name} > NEW")


def _unicode_of(data: bytes) -> str:
    """UTF-16 or UTF-32 by the mark, or by where the zero bytes of Latin letters stand; else nothing."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    head = data[:_PROBE]
    zeros = [head[k::4].count(0) * 4 / max(1, len(head)) for k in range(4)]
    for pattern, encoding in (
        ((0, 1, 1, 1), "UTF-32LE"),
        ((1, 1, 1, 0), "UTF-32BE"),
        ((0, 1, 0, 1), "UTF-16LE"),
        ((1, 0, 1, 0), "UTF-16BE"),
    ):
        if len(head) >= 8 and all(
            (share > 0.6) if zero else (share < 0.2) for share, zero in zip(zeros, pattern, strict=True)
        ):
            return encoding
    return ""


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
