"""What is looked at before long work: whether what it reads is there, and whether what it makes can be written."""

import glob
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from groundup.config.errors import UsageError, UserError


def refuse_existing(out: Path) -> None:
    """Never write over an existing file or folder.

    Raises:
        UsageError: The path is taken by something other than an empty folder, or is the folder that the command is in,
            which would be replaced under its user's feet.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; name another or remove it")
    if out.exists() and out.samefile("."):
        raise UsageError(f"{out} is the folder that you are in; name a new one in it")


def refuse_missing(path: Path) -> None:
    """See that what is to be read is there. Which files a glob means is seen when they are listed.

    Raises:
        UserError: It is not.
    """
    if not path.exists() and not glob.has_magic(str(path)):
        raise UserError(f"{path} does not exist")


def refuse_unwritable(out: Path, *, folder: bool = False) -> None:
    """See that what is to be made has a place.

    Args:
        out: What is to be made, or written over.
        folder: Whether it is a folder, which is made with those above it; else a file in a folder that is there.

    Raises:
        UserError: It has none, or not for this user.
    """
    if out.is_dir() and not folder:
        raise UserError(f"cannot write {out}: it is a folder; name a file in it")
    above = out if folder else out.parent
    place = next((each for each in (above, *above.parents) if each.exists()), above) if folder else above
    if place.is_file():
        raise UserError(f"{place} is a file where a folder is needed; name another")
    if not place.is_dir():
        raise UserError(f"cannot write {out}: there is no folder {place}")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {out}: you may not write in {place}")


def check_paths(options: Any, *, made: Mapping[str, bool]) -> None:
    """See that the paths which a command was given are there, and that what it makes has a place.

    Args:
        options: A dataclass of flags.
        made: Its flags of what is made, and whether that is a folder.

    Raises:
        UserError: One is not there, or has no place.
    """
    for field in fields(options):
        path = getattr(options, field.name)
        if isinstance(path, Path) and field.name in made:
            refuse_unwritable(path, folder=made[field.name])
        elif isinstance(path, Path):
            refuse_missing(path)
