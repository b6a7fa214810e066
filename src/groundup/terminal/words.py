"""Words of a command line that are taken out before the rest is parsed: they decide what there is to parse."""

import re

from groundup.config.errors import UsageError


def split_equals(words: list[str], *flags: str) -> list[str]:
    """Turn `flag=VALUE` into `flag VALUE`, as tyro does for the flags it knows."""
    return [part for word in words for part in (word.split("=", 1) if word.split("=", 1)[0] in flags else [word])]


def take_switch(words: list[str], flag: str) -> bool:
    """Remove a flag without a value from words; whether it was there."""
    if flag not in words:
        return False
    words.remove(flag)
    return True


def take_value(words: list[str], flag: str, *, optional: bool = False) -> str | None:
    """Remove `flag VALUE` from words and return VALUE; None where the flag, or an optional value, is not there.

    Raises:
        UsageError: The value is missing.
    """
    if flag not in words:
        return None
    at = words.index(flag)
    words.pop(at)
    if at < len(words) and (not words[at].startswith("-") or re.match(r"-\.?\d", words[at])):
        return words.pop(at)
    if optional:
        return None
    raise UsageError(f"{flag} needs a value")
