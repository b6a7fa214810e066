"""One text that belongs together, what is left out of those that are read, and files that cannot be read."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from groundup.config.errors import UserError
from groundup.config.printable import printable

SplitName = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class Document:
    """One text that belongs together."""

    text: str
    split: SplitName | None = None
    """Where the source itself puts it; None leaves the choice to the preparation."""
    ends: bool = True
    """Whether the document ends here; False for a piece of a large one that goes on in the next."""
    beginning: str = ""
    """Of a piece, how the whole document begins: the same for all of its pieces, by which they are known."""


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

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each file."""
        return tuple(str(self).split("\n"))

    def __reduce__(self) -> tuple[type["UnreadableError"], tuple[tuple[str, ...], str]]:
        """Errors travel between processes, which make them again from these."""
        return UnreadableError, (self.faults, self.skip)


def usable(documents: Iterable[Document], skipped: dict[str, int]) -> Iterator[Document]:
    """The documents that can become ids: not empty, and Unicode text."""
    for document in documents:
        if not (document.text or document.beginning):  # the last piece of a document may be nothing but its end
            count(skipped, "empty document")
        elif not document.text.isascii() and not _has_utf8(document.text):
            count(skipped, "lone surrogate: not Unicode text")
        else:
            yield document


def all_unreadable(errors: Sequence[UserError]) -> UserError:
    """One error for those of several parts."""
    known = [error for error in errors if isinstance(error, UnreadableError)]
    faults = [str(error) for error in errors if not isinstance(error, UnreadableError)]
    faults += [fault for error in known for fault in error.faults]
    return UnreadableError(sorted(faults), *[error.skip for error in known[:1]])


def count(skipped: dict[str, int], reason: str) -> None:
    """One more record that was left out for this reason, in letters that JSON has, as names of files may not."""
    reason = printable(reason)
    skipped[reason] = skipped.get(reason, 0) + 1


def _has_utf8(text: str) -> bool:
    """Whether a text holds no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
