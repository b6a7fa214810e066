"""Where text comes from, as every corpus shows itself to the rest of the program."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from groundup.config.errors import UserError
from groundup.formats.document import Document, all_unreadable, usable

Part = Any
"""A unit of work of a source: a file, a row group, a range of bytes; a path, or a tuple of paths and numbers.

It travels between processes, so it is small; it means the same in every process; and since a part is what is redone
after a crash and what one worker does at a time, it stands for 1 to 64 MB of text: large files are cut into several
parts, and many small files are gathered into one.
"""


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


def read_all(
    source: Source,
    parts: Sequence[Part],
    skipped: dict[str, int],
    progress: Callable[[int, int], None] = lambda documents, characters: None,
) -> Iterator[tuple[int, Document]]:
    """All usable documents, each with the number of its part; `progress` gets their number so far, and of characters.

    Raises:
        UnreadableError: After the last document: what could not be read.
    """
    failed: list[UserError] = []
    documents = characters = 0
    for number, part in enumerate(parts):
        try:
            for document in usable(source.read(part, skipped), skipped):
                documents += 1
                characters += len(document.text)
                progress(documents, characters)
                yield number, document
        except UserError as error:
            failed.append(error)
    if failed:
        raise all_unreadable(failed)
