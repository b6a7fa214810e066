"""Where text comes from, as every corpus shows itself to the rest of the program."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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
            UserError: The part cannot be read; the message names file and place.
        """
