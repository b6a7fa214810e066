"""Tables: .csv and .tsv, whose first line names the columns."""

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError
from groundup.config.limits import LINE_BYTES
from groundup.formats.decode import text_chunks
from groundup.formats.document import Document, count
from groundup.formats.records import find_column

HEAD = 1 << 20
"""Characters by which the form of a table is found."""
_QUOTED, _UNQUOTED = {"strict": True}, {"quoting": csv.QUOTE_NONE}

Form = dict[str, Any]
"""Arguments of `csv.reader`."""


def read_csv(chunks: Iterable[bytes], name: str, config: ReadConfig, skipped: dict[str, int]) -> Iterator[Document]:
    """The texts of a column; commas, or semicolons or tabs where the header says so, stand between columns.

    Raises:
        UserError: There is no such column, or a quote is not closed; file and line are named.
    """
    forms = [{"delimiter": mark, **_QUOTED} for mark in ",;\t|"]
    yield from _texts(chunks, name, config, skipped, [*forms, {"delimiter": ",", **_UNQUOTED}])


def read_tsv(chunks: Iterable[bytes], name: str, config: ReadConfig, skipped: dict[str, int]) -> Iterator[Document]:
    """The same with tabs; quotes are letters where the file does not use them as a table does."""
    yield from _texts(chunks, name, config, skipped, [{"delimiter": "\t", **_QUOTED}, {"delimiter": "\t", **_UNQUOTED}])


def _texts(
    chunks: Iterable[bytes], name: str, config: ReadConfig, skipped: dict[str, int], forms: Sequence[Form]
) -> Iterator[Document]:
    csv.field_size_limit(LINE_BYTES.value)
    decoded = text_chunks(chunks, name)
    head = ""
    while len(head) < HEAD and (chunk := next(decoded, None)) is not None:
        head += chunk
    if not head.strip():
        return
    form = _form(head, name, config, forms)
    reader = csv.reader(_lines(itertools.chain([head], decoded), name), **form)
    short = name.rsplit("/", 1)[-1]
    try:
        header = next(reader)
        place = find_column(header, name, config.text_column, config.FLAGS)
        for row in reader:
            if len(row) == len(header):
                yield Document(row[place])
            elif row:
                count(skipped, f"row with {len(row)} of {len(header)} columns in {short}")
    except csv.Error as error:
        if "field limit" in str(error):
            raise LINE_BYTES.passed(f"{name}: a field that ends at line {reader.line_num}") from None
        raise UserError(
            f"{name} is no sound table at line {reader.line_num}: {error}; there or above, a quote is not closed, or"
            " one inside a quoted field is not doubled"
        ) from None


def _form(head: str, name: str, config: ReadConfig, forms: Sequence[Form]) -> Form:
    """The first form in which the head has the column and every row has all columns; else the first with the column."""
    column = config.text_column
    with_column = [(form, _even(head, form)) for form in forms if column in _header(head, form)]
    if not with_column:
        find_column(max((_header(head, form) for form in forms), key=len), name, column, config.FLAGS)
    return next((form for form, even in with_column if even), with_column[0][0])


def _header(head: str, form: Form) -> list[str]:
    try:
        return next(csv.reader(_lines([head], ""), **form), [])
    except csv.Error:
        return []


def _even(head: str, form: Form) -> bool:
    """Whether all rows have as many columns as the first, up to where the head is cut off.

    Where a whole field stands in quotes between commas, quotes are no letters: one that is not closed is an error.
    """
    reader = csv.reader(_lines([head], ""), **form)
    widths: list[int] = []
    letters = form == {"delimiter": ",", **_UNQUOTED}
    try:
        for row in filter(None, reader):
            if letters and any(len(field) > 1 and field[0] == field[-1] == '"' for field in row):
                return False
            widths.append(len(row))
    except csv.Error as error:
        if not any(far in str(error) for far in ("unexpected end", "field limit")) or len(head) < HEAD:
            return False
    else:
        widths = widths[:-1] if len(head) >= HEAD else widths
    return len(set(widths)) == 1


def _lines(chunks: Iterable[str], name: str) -> Iterator[str]:
    """Lines with their ends: only line feeds end one.

    Raises:
        UserError: A line is longer than LINE_BYTES.
    """
    held = ""
    for chunk in chunks:
        LINE_BYTES.check(len(held), f"{name}: a line")
        *lines, held = (held + chunk).split("\n")
        for line in lines:
            yield f"{line}\n"
    if held:
        yield held
