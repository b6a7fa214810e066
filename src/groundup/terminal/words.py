"""Words of a command line that are taken out before the rest is parsed: they decide what there is to parse."""

import re
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from groundup.config.errors import UsageError


def split_equals(words: list[str], *flags: str) -> list[str]:
    """Turn `flag=VALUE` into `flag VALUE`, as tyro does for the flags it knows."""
    return [part for word in words for part in (word.split("=", 1) if word.split("=", 1)[0] in flags else [word])]


def plain_places(words: Sequence[str], switches: Collection[str]) -> list[int]:
    """Where words stand that are neither flags nor the values of flags: one value at most for a flag.

    Args:
        words: Those after a command.
        switches: Flags that take no value; their negations, as --no-profile, need not be listed.
    """
    places = []
    for at, word in enumerate(words):
        flag = words[at - 1].replace("_", "-") if at else ""
        has_value = re.match(r"--[^=]+$", flag) and flag not in switches and not re.match(r"--(.+\.)?no-", flag)
        if not has_value and (word == "-" or not word.startswith("-")):
            places.append(at)
    return places


def switches(config: Any, section: str = "--") -> set[str]:
    """The flags of a config that take no value: what is true or false in it."""
    found: set[str] = set()
    for field in fields(config):
        name, value = section + field.name.replace("_", "-"), getattr(config, field.name)
        found |= switches(value, f"{name}.") if is_dataclass(value) else {name} if isinstance(value, bool) else set()
    return found


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
    if at < len(words) and not words[at]:  # as of a variable that is not set
        raise UsageError(f"{flag} needs a value, got ''")
    if at < len(words) and (not words[at].startswith("-") or re.match(r"-\.?\d", words[at])):
        return words.pop(at)
    if optional:
        return None
    raise UsageError(f"{flag} needs a value")
