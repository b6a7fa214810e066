"""Where text comes from, as every corpus shows itself to the rest of the program."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from groundup.config.errors import UserError

SplitName = Literal["train", "val"]
Part = Any
"""A unit of work of a source: a file, a row group, a range of bytes; a path, or a tuple of paths and numbers.

It travels between processes, so it is small; it means the same in every process; and since a part is what is redone
after a crash and what one worker does at a time, it stands for 1 to 64 MB of text: large files are cut into several
parts, and many small files are gathered into one.
"""


@dataclass(frozen=True, slots=True)
class Document:
    """One text that belongs together."""

    text: str
    split: SplitName | None = None
    """Where the source itself puts it; None leaves the choice to the preparation."""
    ends: bool = True
    """Whether the document ends here; False for a piece of a large one that goes on in the next."""


class UnreadableError(UserError):
    """Files that cannot be read, all that were met, a line for each.

    Args:
        faults: What is wrong with each, the file named.
        skip: The flag that leaves them out.
    """

    SHOWN = 20

    def __init__(self, faults: Sequence[str], skip: str = "--bad-files skip") -> None:
        self.faults, self.skip = tuple(faults), skip
        if len(faults) == 1:
            super().__init__(faults[0])
            return
        more = [f"and {len(faults) - self.SHOWN:,} more"] if len(faults) > self.SHOWN else []
        rows = [f"{len(faults):,} files cannot be read; {skip} leaves them out:", *faults[: self.SHOWN], *more]
        super().__init__("\n  ".join(rows))

    def __reduce__(self) -> tuple[type["UnreadableError"], tuple[tuple[str, ...], str]]:
        """Errors travel between processes, which make them again from these."""
        return UnreadableError, (self.faults, self.skip)


class Source(Protocol):
    """A corpus. Its parts, read in order, are its documents, in order; workers share the parts."""

    @property
    def name(self) -> str:
        """What messages and folders call it."""

    def describe(self) -> dict[str, Any]:
        """JSON values of everything that decides the documents: the preparation is repeated when they change."""

    def parts(self) -> Sequence[Part]:
        """The units of work, in a fixed order.

        Raises:
            UserError: The corpus is not there.
        """

    def read(self, part: Part, skipped: dict[str, int]) -> Iterator[Document]:
        """The documents of one part; records that cannot be used are counted in `skipped` by reason.

        Raises:
            UserError: The part cannot be read; the message names file and place. Files of it that can be read come
                first, so that one fault does not hide another.
        """


def usable(documents: Iterable[Document], skipped: dict[str, int]) -> Iterator[Document]:
    """The documents that can become ids: not empty, and Unicode text."""
    for document in documents:
        if not document.text:
            count(skipped, "empty document")
        elif not document.text.isascii() and not _has_utf8(document.text):
            count(skipped, "lone surrogate: not Unicode text")
        else:
            yield document


def read_all(source: Source, parts: Sequence[Part], skipped: dict[str, int]) -> Iterator[tuple[int, Document]]:
    """All usable documents, each with the number of its part.

    Raises:
        UnreadableError: After the last document: what could not be read.
    """
    failed: list[UserError] = []
    for number, part in enumerate(parts):
        try:
            for document in usable(source.read(part, skipped), skipped):
                yield number, document
        except UserError as error:
            failed.append(error)
    if failed:
        raise all_unreadable(failed)


def all_unreadable(errors: Sequence[UserError]) -> UserError:
    """One error for those of several parts."""
    known = [error for error in errors if isinstance(error, UnreadableError)]
    faults = [str(error) for error in errors if not isinstance(error, UnreadableError)]
    faults += [fault for error in known for fault in error.faults]
    return UnreadableError(sorted(faults), *[error.skip for error in known[:1]])


def count(skipped: dict[str, int], reason: str) -> None:
    """One more record that was left out for this reason."""
    skipped[reason] = skipped.get(reason, 0) + 1


def _has_utf8(text: str) -> bool:
    """Whether a text holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
