"""Choices that were measured on this machine, kept for the next process."""

import contextlib
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from groundup.config.errors import UserError
from groundup.config.io import dump_json, load_json

Choice = TypeVar("Choice", bound=str)
LOCK_SECONDS = 5.0
"""A file of choices is written in a moment; where it stays locked, a choice is not worth the wait."""


def remembered(file: str, key: str, choices: Collection[Choice], measure: Callable[[], Choice]) -> Choice:
    """What was chosen before; else what is measured now, which is written down.

    Args:
        file: Name of a JSON file in the cache.
        key: What the choice depends on.
        choices: What may be chosen: anything else that stands in the file is passed over.
        measure: Makes the choice.
    """
    known = _entries(file).get(key)
    for choice in choices:
        if choice == known:
            return choice
    chosen = measure()
    with contextlib.suppress(OSError):  # then it is measured again
        path = cache_folder() / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            FileLock(path.with_name(f".{file}.lock"), timeout=LOCK_SECONDS),
            tempfile.TemporaryDirectory(dir=path.parent) as folder,
        ):
            made = Path(folder, file)
            # Read again: while this one measured, another command may have written down what it chose.
            made.write_text(dump_json(_entries(file) | {key: chosen}), encoding="utf-8")
            made.replace(path)
    return chosen


def _entries(file: str) -> dict[str, str]:
    try:
        found = load_json(cache_folder() / file)
    except (OSError, UserError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {key: choice for key, choice in entries if isinstance(choice, str)}


def cache_folder() -> Path:
    """Where what was made for this machine lies; may be removed at any time.

    Raises:
        OSError: The user has no home folder, as some containers leave it.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "groundup"
    except RuntimeError as error:
        raise FileNotFoundError("there is no home folder for a cache; set XDG_CACHE_HOME") from error


def machine_id() -> str:
    """A hash of what this processor can do: a home folder may be shared by several machines."""
    able = f"{platform.system()} {platform.machine()} {platform.processor()}"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        able += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(able.encode()).hexdigest()[:16]
