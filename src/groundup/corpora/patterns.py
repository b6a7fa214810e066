"""Globs: as regular expressions, and as a walk that comes back from links."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path


def glob_regex(pattern: str) -> str:
    """A glob as a regular expression of whole paths: `*` stays within a folder, `**` does not.

    Raises:
        re.error: A set such as [z-a] means nothing.
    """
    pattern = re.sub(r"(\*\*/)+", "**/", re.sub(r"\*{3,}", "**", pattern))
    out = ""
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|[^*?\[]+|\[", pattern):
        known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        is_set = token.startswith("[") and len(token) > 1
        # In a set these would ask for one set inside another, or for an operation on two.
        inner = re.sub(r"([\[&|~])", r"\\\1", token[1:]).replace("!", "^", token.startswith("[!"))
        out += known.get(token) or (f"[{inner}" if is_set else re.escape(token))
    re.compile(out)
    return out + r"\Z"


def find_files(folder: Path, *, follow: bool) -> Iterator[Path]:
    """All files below a folder, by name, without what begins with a dot.

    Args:
        folder: Where to begin.
        follow: Enter linked folders, each real folder once.
    """
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=follow):
        facts = os.stat(place)  # noqa: PTH116  # of tens of thousands
        if (key := (facts.st_dev, facts.st_ino)) in seen:
            folders.clear()
            continue
        seen.add(key)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if not name.startswith(".") and path.is_file():
                yield path


def match_files(pattern: str) -> list[Path]:
    """The files that a glob means, without what begins with a dot unless the pattern says the dot.

    A glob with `**` enters linked folders, but each only once: a link may lead back to where it stands.

    Raises:
        ValueError: A set such as [z-a] means nothing.
    """
    if "**" not in pattern:
        return [path for path in map(Path, glob.glob(pattern)) if path.is_file()]  # noqa: PTH207
    parts = Path(pattern).parts
    fixed = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    folder = Path(*parts[:fixed])
    try:
        wanted = re.compile(glob_regex("/".join(parts[fixed:])))
    except re.error as error:
        raise ValueError(str(error)) from None
    # A pattern that ends with ** means everything below.
    return [path for path in find_files(folder, follow=True) if wanted.match(path.relative_to(folder).as_posix())]


def once(paths: list[Path]) -> list[Path]:
    """By name, one path for each file, whatever links lead to it."""
    kept: dict[tuple[int, int], Path] = {}
    for path in sorted(paths, key=lambda path: path.as_posix()):
        facts = path.stat()
        kept.setdefault((facts.st_dev, facts.st_ino), path)
    return list(kept.values())
