"""Text from outside, shown so that it cannot command a terminal; numbers with what they count; lists that end."""

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and new line, those that turn the direction of writing, and bytes that are no text."""


def printable(text: str) -> str:
    """Control characters as their escapes: a cursor moved by a folder's name could hide a message."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def typed(text: str) -> str:
    """A text typed in UTF-8, also where Python took its bytes for no characters (LC_ALL=C); other bytes stay."""
    try:
        return text.encode(errors="surrogateescape").decode()
    except UnicodeError:
        return text


def counted(n: int, what: str) -> str:
    """A number and what it counts: 1 run, 2,000 runs."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Some names, and how many there are beside the first of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
