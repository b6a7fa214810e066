"""Results that go into a folder or file of their own."""

from pathlib import Path

from groundup.config.errors import UsageError


def refuse_existing(out: Path) -> None:
    """Never write over an existing file or folder.

    Raises:
        UsageError: The path is taken by something other than an empty folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; name another or remove it")
