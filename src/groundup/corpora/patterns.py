"""Globs: as regular expressions, and as a walk that comes back from links; what to say of a path that is not there."""

import difflib
import glob
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from groundup.config.errors import UsageError, UserError
from groundup.files.layout import is_made_here


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


class Found(NamedTuple):
    """A file that was found. Not a `Path`: there may be a million of them."""

    path: str
    """With a separator at its end it is a folder that nobody can look into: reading it tells why."""
    n_bytes: int
    identity: tuple[int, int]
    """Device and number on it: equal where two names lead to one file."""
    is_regular: bool
    """No pipe and no device, which have no size."""

    @property
    def is_folder(self) -> bool:
        """Whether it stands for all that a folder may hold."""
        return self.path.endswith(os.sep)


LINKS = "links to folders are entered only by a glob with **"
MADE_HERE = "runs, models and prepared data are not read as text"
Leave = Callable[[str, str], None]
"""Called with a folder that is not entered, and why."""


def found(path: str) -> Found | None:
    """What the file system says of a path; None where there is no file, or a folder."""
    try:
        facts = os.stat(path)  # noqa: PTH116
    except PermissionError:
        return _closed(path)
    except OSError:
        return None
    if stat.S_ISDIR(facts.st_mode):
        return None
    return Found(path, facts.st_size, (facts.st_dev, facts.st_ino), stat.S_ISREG(facts.st_mode))


def _closed(path: str) -> Found:
    """What may be a text of any length, and is nowhere else: to be refused by its name where it is read."""
    return Found(path, 1, (-1, hash(path)), is_regular=True)


def find_files(folder: str, *, follow: bool, leave: Leave = lambda *_: None) -> Iterator[Found]:
    """All regular files below a folder, by name, without what begins with a dot; behind them, folders that are closed.

    Runs, models and prepared data below it are left out: what a run writes must not change the text that it learns.

    Args:
        folder: Where to begin.
        follow: Enter linked folders, each real folder once.
        leave: Told of what is left out; of linked folders unless they lead to a place below `folder`.
    """
    seen: set[tuple[int, int]] = set()
    closed: list[str] = []
    here = os.path.join(os.path.realpath(folder), "")  # noqa: PTH118
    for place, folders, files in os.walk(folder, onerror=lambda e: closed.append(e.filename), followlinks=follow):
        facts = os.stat(place)  # noqa: PTH116
        if (key := (facts.st_dev, facts.st_ino)) in seen:
            folders.clear()
            continue
        seen.add(key)
        if place != folder and is_made_here(files):
            leave(place, MADE_HERE)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in () if follow else (os.path.join(place, name) for name in folders):  # noqa: PTH118
            target = os.path.join(os.path.realpath(path), "") if os.path.islink(path) else here  # noqa: PTH114, PTH118
            if not target.startswith(here):
                leave(path, LINKS)
        for name in sorted(files):
            if not name.startswith(".") and (file := found(os.path.join(place, name))) and file.is_regular:  # noqa: PTH118
                yield file
    yield from (_closed(os.path.join(path, "")) for path in closed)  # noqa: PTH118


def match_files(pattern: str, folder: str = "", leave: Leave = lambda *_: None) -> Iterator[Found]:
    """The regular files that a glob means, without what begins with a dot unless the pattern says the dot.

    A glob with `**` enters linked folders, but each only once: a link may lead back to where it stands.

    Args:
        pattern: The glob, as `normpath` has it.
        folder: Where it begins, unless it is absolute; brackets in this name are letters.
        leave: Told of what is left out.

    Raises:
        ValueError: A set such as [z-a] means nothing.
    """
    while pattern.startswith(os.path.join(os.pardir, "")):  # noqa: PTH118
        folder, pattern = os.path.dirname(folder), pattern[3:]  # noqa: PTH120
    parts = Path(pattern).parts
    if "**" not in pattern:
        names = (os.path.join(folder, name) for name in glob.iglob(pattern, root_dir=folder or None))  # noqa: PTH118, PTH207
        yield from (file for path in names if (file := found(path)) and file.is_regular)
        yield from _closed_on_the_way(parts, folder)
        return
    fixed = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    folder = os.path.join(folder, *parts[:fixed])  # noqa: PTH118
    try:
        wanted = re.compile(glob_regex("/".join(parts[fixed:])))
    except re.error as error:
        raise ValueError(str(error)) from None
    below = len(os.path.join(folder, ""))  # noqa: PTH118
    for file in find_files(folder, follow=True, leave=leave):  # a pattern that ends with ** means everything below
        if file.is_folder or wanted.match(file.path[below:].replace(os.sep, "/")):
            yield file


def _closed_on_the_way(parts: Sequence[str], folder: str) -> Iterator[Found]:
    """Folders in which a glob without `**` looks for names and sees none, or not those it asks for."""
    magic = [glob.has_magic(part) for part in parts]
    for k in range(magic.index(True), len(parts)):
        for name in glob.iglob(os.path.join(os.curdir, *parts[:k]), root_dir=folder or None):  # noqa: PTH118, PTH207
            place = os.path.normpath(os.path.join(folder, name))  # noqa: PTH118
            if os.path.isdir(place) and not os.access(place, os.R_OK if magic[k] else os.X_OK):  # noqa: PTH112
                yield _closed(os.path.join(place, ""))  # noqa: PTH118


def once(files: Iterable[Found]) -> list[Found]:
    """By name, one path for each file, whatever links lead to it."""
    kept: dict[tuple[int, int], Found] = {}
    for file in sorted(files, key=lambda file: file.path.replace(os.sep, "/")):
        kept.setdefault(file.identity, file)
    return list(kept.values())


def not_there(name: str) -> str:
    """What to say of a path that leads to nothing."""
    if (path := Path(name)).is_symlink():
        return f"{name} is a link to {path.readlink()}, and that leads nowhere"
    near = near_file(path)
    return f"{name} does not exist{f'; did you mean {near}?' if near else ''}"


def nothing_there(word: str, hint: str, *, no_name: str, then: str = "name") -> UserError:
    """What to say of a word that is no name of ours and leads to no file; by its form it was meant as one or the other.

    Args:
        word: What was typed.
        hint: What to name in its place, where it was meant as a path.
        no_name: What to say where it was meant as a name of ours: the request itself is wrong.
        then: What to do with the file once it was downloaded, where the word is an address.
    """
    path = Path(word)
    if re.match(r"https?://", word):
        file = shlex.quote(path.name or "text.txt")
        return UsageError(
            f"{word} is not on this machine; download it first: curl -L -o {file} {shlex.quote(word)},"
            f" then {then} {file}"
        )
    if path.is_symlink() or near_file(path):
        return UserError(not_there(word))
    if "/" in word or path.suffix:
        return UserError(f"{word} does not exist; {hint}")
    return UsageError(no_name)


def near_file(path: Path) -> Path | None:
    """What is called nearly as a path that does not exist, in the same folder."""
    try:
        names = {each.name.lower(): each for each in path.parent.iterdir() if not each.name.startswith(".")}
    except OSError:
        return None
    near = difflib.get_close_matches(path.name.lower(), names, n=1, cutoff=0.75)
    # Names may be near by their endings alone: gone.jsonl, mine.jsonl.
    alike = near and difflib.get_close_matches(path.stem.lower(), [Path(near[0]).stem])
    return names[near[0]] if alike and path.name else None
