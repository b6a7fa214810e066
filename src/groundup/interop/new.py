"""Where imports and exports go: into a folder that is new."""

from pathlib import Path

from groundup.config.errors import UsageError


def refuse_existing(out: Path) -> None:
    """Never write over what is there.

    Raises:
        UsageError: The path is taken by something other than an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; name another folder or remove it")
