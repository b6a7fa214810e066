"""Records with a text under a key: what is used of them, and the notes on the others."""

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.formats.document import Document, count


def find_column(columns: Sequence[str], name: str, column: str, flags: str) -> int:
    """The place of the text among the columns of a table.

    Args:
        columns: Their names.
        name: Of the file, for messages.
        column: The one of the text.
        flags: How the flag that chooses it begins.

    Raises:
        UserError: No column has that name, or several have it.
    """
    if column not in columns:
        known = ", ".join(each[:40] for each in columns[:8])
        raise UserError(f"{name} has no column {column!r}, its columns are {known}; choose with {flags}text-column")
    if (times := columns.count(column)) > 1:
        raise UserError(f"{name} has {times} columns {column!r}; give each a name of its own")
    return columns.index(column)


class Records:
    """Takes the texts out of records that are read one by one, and counts those that have none.

    Args:
        name: Of the file, for messages.
        config: Names the key of the text.
        skipped: Where records without text are counted, by reason and file.
        strings: A string is a text, too.
    """

    def __init__(self, name: str, config: ReadConfig, skipped: dict[str, int], *, strings: bool) -> None:
        self._strings = strings
        self._name, self._key, self._skipped = name, config.text_column, skipped
        self._flags = config.FLAGS
        self._records = self._without = self._others = 0
        self._keys: list[str] = []
        self._inner = ""  # the key under which the records stand, where they stand in one

    def take(self, record: Any) -> Iterator[Document]:
        """The text of a record, if it has one."""
        if self._strings and isinstance(record, str):
            yield Document(record)
            return
        if not isinstance(record, dict):
            self._others += 1
            self._skip("line that is not a JSON object")
            return
        self._records += 1
        if isinstance(text := record.get(self._key), str):
            yield Document(text)
        elif self._key in record:
            self._skip(f"{self._key} that is null" if text is None else f"{self._key} that is not a string")
        else:
            self._without += 1
            self._keys = self._keys or sorted(map(str, record))
            self._inner = self._inner or next((key for key, value in record.items() if self._has_texts(value)), "")
            self._skip(f"record without {self._key}")

    def finish(self) -> None:
        """Say that the key is a mistake where no record has it.

        Raises:
            UserError: No record has the key.
        """
        if self._records and self._without == self._records:
            if self._inner:
                raise UserError(
                    f"{self._name}: the records stand under the key {self._inner!r} of one; take them out first:"
                    f" jq -c '.[{json.dumps(self._inner)}][]' {shlex.quote(self._name)} > NEW.jsonl"
                )
            known = ", ".join(self._keys[:8]) or "none"
            raise UserError(
                f"{self._name}: no record has the key {self._key!r}, its keys are {known};"
                f" choose with {self._flags}text-column"
            )

    def _has_texts(self, value: Any) -> bool:
        return isinstance(value, list) and any(isinstance(item, dict) and self._key in item for item in value[:1])

    def _skip(self, reason: str) -> None:
        count(self._skipped, f"{reason} in {self._name.rsplit('/', 1)[-1]}")
