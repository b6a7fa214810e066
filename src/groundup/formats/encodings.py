"""What bytes are that are not UTF-8, and the command that makes UTF-8 of them."""

import codecs
import quopri
import re
import shlex
import unicodedata
from collections.abc import Callable
from functools import partial

from groundup.config.errors import UserError

PROBE = 1 << 16
"""Bytes at the beginning that are looked at."""
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks; UTF-32's first, for one begins like UTF-16's."""
_WIDE = ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE")
_IN_ASCII = bytes(range(32, 127)) + b"\t\n\r\f\0"
"""Bytes of text in ASCII, with zeros in it."""
_PYTHON = "python3 -c 'import sys; sys.stdout.buffer.write({})' < {} > NEW"
"""For what iconv does not know: an expression and a file."""

_LEAST = 3
"""Places of an encoding that are no accident."""
_UTF_7 = re.compile(rb"\+[A-Za-z0-9+/]{3,}")
"""What stands for characters beyond ASCII in UTF-7, where a plus sign itself is `+-`."""
_HZ = re.compile(rb"~\{(?:[!-w][!-~])+~\}")
"""What stands for Chinese in HZ, where a tilde itself is `~~`."""
_QUOTED = re.compile(rb"=[89A-F][0-9A-F]")
_NOT_QUOTED = re.compile(rb"=(?![0-9A-F]{2}|[ \t]*\r?\n|\Z|[0-9A-F]\Z)")
_SOFT_BREAK = re.compile(rb"=[ \t]*\r?\n")
"""Of quoted-printable, the form of mails: a byte beyond ASCII, an equal sign of something else, a line that goes on."""
_SHIFT = b"\x1b$"
_ISO_2022 = (
    (b"\x1b$)C", "ISO-2022-KR", "iso2022_kr"),
    (b"\x1b$)A", "ISO-2022-CN", ""),
    (b"\x1b$)G", "ISO-2022-CN", ""),
    (_SHIFT, "ISO-2022-JP", "iso2022_jp"),
    (_SHIFT, "ISO-2022-JP-2", "iso2022_jp_2"),
    (_SHIFT, "ISO-2022-JP-3", "iso2022_jp_3"),
    (_SHIFT, "ISO-2022-JP-3", "iso2022_jp_ext"),
)
"""The escape after which pairs of bytes stand for one character, iconv's name, and Python's codec, of which ISO-2022-CN
has none."""

_MARKS_OF_TEXT = (
    "\u201c\u201d\u201e\u2018\u2019\u201a\u00ab\u00bb\u2013\u2014\u2026\u00a0\u20ac\u00a3\u00b0\u00a7\u2022\u00bf\u00a1"
)
_WEST = "àâäåæáãçéèêëíîïñóôöòøœúûüùßìõ"
_MIDDLE = "ąćęłńóśźżáčďéěíňřšťúůýžőűöüôäßâîășțşţ"
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґ"
_HAN = "\u4e00-\u9fff\u3000-\u3011\uff01-\uff1f\u201c\u201d"
_LIKELY: tuple[tuple[str, str, str], ...] = (
    ("WINDOWS-1252", "cp1252", _WEST),
    ("MACINTOSH", "mac-roman", _WEST),
    ("IBM850", "cp850", _WEST),
    ("WINDOWS-1250", "cp1250", _MIDDLE),
    ("ISO-8859-2", "iso8859-2", _MIDDLE),
    ("WINDOWS-1254", "cp1254", _WEST + "ığş"),
    ("WINDOWS-1251", "cp1251", _CYRILLIC),
    ("KOI8-R", "koi8-r", _CYRILLIC),
    ("IBM866", "cp866", _CYRILLIC),
    ("ISO-8859-5", "iso8859-5", _CYRILLIC),
    ("WINDOWS-1253", "cp1253", "αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋ"),
    ("EUC-KR", "euc_kr", "\uac00-\ud7a3"),
    ("GB18030", "gb2312", _HAN),
    ("BIG5", "big5", _HAN),
    ("SHIFT_JIS", "shift_jis", f"\u3040-\u30ff{_HAN}"),
    ("EUC-JP", "euc_jp", f"\u3040-\u30ff{_HAN}"),
)
"""iconv's name, Python's codec, and letters that texts in this encoding are made of; of equals the first is named."""
_STRANGE = 0.34
"""Share of other characters from which an encoding is not named."""
_LATIN_SHARE = 0.4
"""Bytes beyond ASCII in all: fewer in Latin letters, more in others."""


def convert(what: str, encoding: str, name: str) -> UserError:
    """What to say of text in an encoding that iconv knows."""
    return UserError(f"{what}; convert it first: iconv -f {encoding} -t UTF-8 {shlex.quote(name)} > NEW")


def refuse_ascii_encodings(data: bytes, name: str) -> None:
    """Refuse text of encodings that are made of ASCII bytes, and would be learned as they stand.

    They are ISO 2022, UTF-7, HZ and quoted-printable. Escapes of terminals, as for colors, are text.

    Raises:
        UserError: It is; the message names it.
    """
    if not any(mark in data for mark in (_SHIFT, b"+", b"~{", b"=")) or not data.isascii():
        return
    if _decodes_to_more(data, "utf-7", _UTF_7):
        raise convert(f"{name} is UTF-7", "UTF-7", name)
    if _decodes_to_more(data, "hz", _HZ):
        raise _by_python(f"{name} is HZ", 'sys.stdin.buffer.read().decode("hz").encode()', name)
    if _is_quoted(data):
        raise _by_python(
            f"{name} is quoted-printable", '__import__("quopri").decodestring(sys.stdin.buffer.read())', name
        )
    for escape, encoding, codec in _ISO_2022:
        if escape in data and _is_shifted(data, codec):
            raise convert(f"{name} is {encoding}", encoding, name)


def _by_python(what: str, expression: str, name: str) -> UserError:
    return UserError(f"{what}; convert it first: {_PYTHON.format(expression, shlex.quote(name))}")


def _is_shifted(data: bytes, codec: str) -> bool:
    """Whether it decodes, to more than ASCII; the end may cut a character."""
    try:
        return not codec or not codecs.getincrementaldecoder(codec)().decode(data).isascii()
    except UnicodeDecodeError:
        return False


def _decodes_to_more(data: bytes, codec: str, place: re.Pattern[bytes]) -> bool:
    """Whether each of its signs begins characters beyond ASCII, some times; those of `a + b`, `C++`, `+49` do not."""
    if len(place.findall(data)) < _LEAST:
        return False
    try:
        text = codecs.getincrementaldecoder(codec)().decode(data)
    except UnicodeDecodeError:
        return False
    others = [character for character in text if character > "\x7f"]
    return len(others) >= _LEAST and all(unicodedata.category(other)[0] in "LMNPSZ" for other in others)


def _is_quoted(data: bytes) -> bool:
    """Whether each equal sign belongs to quoted-printable, some of bytes beyond ASCII; those of `a=80, b=90` do not."""
    if len(_QUOTED.findall(data)) < _LEAST or _NOT_QUOTED.search(data):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(quopri.decodestring(data))
    except UnicodeDecodeError:
        return _SOFT_BREAK.search(data) is not None
    return True


def wide_encoding(data: bytes) -> str:
    """UTF-16 or UTF-32 by the mark, or where all characters are such as stand in texts, spaces and lines among them."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return encoding
    head = data[: min(len(data), PROBE) // 4 * 4]
    if not head.translate(None, _IN_ASCII) and 3 * head.count(0) < len(head):
        return ""  # a few zeros among letters, which in pairs would be rare Chinese
    found = max(_WIDE, key=partial(_plain_characters, head)) if len(head) >= 8 else ""
    return found if found and _plain_characters(head, found) else ""


def _plain_characters(data: bytes, encoding: str) -> int:
    """Characters of ASCII in a text, and none where it holds what is in no text."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return 0
    odd = (
        c for c in text if unicodedata.category(c)[0] == "C" and c not in "\n\r\t\f" and unicodedata.category(c) != "Cf"
    )
    return 0 if next(odd, None) else sum(1 for c in text if c < "\x7f")


def likely_encoding(data: bytes) -> tuple[str, str]:
    """The encoding of 8 bits in which a text has the fewest strange characters, and what stands in it then.

    Texts in several encodings may read alike, so that this is a guess, for a person to check.
    """
    head = data[:PROBE]
    high = sum(1 for byte in head if byte > 0x7F)
    is_latin = high < _LATIN_SHARE * len(head)
    best, least, read = "", _STRANGE, ""
    for encoding, codec, letters in _LIKELY:
        if ("é" in letters) != is_latin:
            continue
        try:
            text = codecs.getincrementaldecoder(codec)().decode(head)
        except UnicodeDecodeError:
            continue
        if (strange := _strange(letters)(text)) < least:
            best, least, read = encoding, strange, text
    at = next((i for i, character in enumerate(read) if character > "\x7f"), 0)
    return best, " ".join(read[max(0, at - 16) : at + 24].split())


def _strange(letters: str) -> Callable[[str], float]:
    """What gives the share of characters beyond ASCII that are neither such letters nor marks between words."""
    usual = re.compile(
        rf"[{letters}]|(?<![^\W\d_])[{letters.upper()}]|(?<=[A-Z{letters.upper()}])[{letters.upper()}]"
        rf"|(?<![^\W\d_])[{_MARKS_OF_TEXT}]|[{_MARKS_OF_TEXT}](?![^\W\d_])|\u2019"
    )

    def share(text: str) -> float:
        others = sum(1 for character in text if character > "\x7f")
        return 1 - sum(1 for found in usual.finditer(text) if found[0] > "\x7f") / max(1, others)

    return share
