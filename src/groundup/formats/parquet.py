"""Text out of parquet files, one column, row groups as spans, some rows at a time."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from groundup.config.data import ReadConfig
from groundup.config.errors import UserError, first_line
from groundup.files.apart import apart
from groundup.formats.document import Document, count
from groundup.formats.records import find_column
from groundup.formats.spans import Span, merge_spans

BATCH_BYTES = 8 << 20
"""About how much text is unpacked at a time."""
BATCH_ROWS = 1024


def spans(file: BinaryIO, name: str, config: ReadConfig) -> list[Span]:
    """Neighboring row groups with PART_BYTES of text together; a row group cannot be cut.

    Args:
        file: Open, of bytes.
        name: Of the file, for messages.
        config: Names the column of the text.

    Raises:
        UserError: The file is not whole, has no such column, or the column is not of text.
    """
    (sizes,) = apart(f"{__name__}:row_group_sizes", file, name, name, config.text_column, config.FLAGS)
    return merge_spans(Span(k, k + 1, size) for k, size in enumerate(sizes))


def read(
    file: BinaryIO, name: str, span: tuple[int, int], config: ReadConfig, skipped: dict[str, int]
) -> Iterator[Document]:
    """The texts of row groups [start, stop); rows without one are counted in `skipped`, by reason and file.

    Raises:
        UserError: As `spans`, or a row group is damaged; it is named.
    """
    for texts, without in apart(
        f"{__name__}:row_group_texts", file, name, name, *span, config.text_column, config.FLAGS
    ):
        yield from map(Document, texts)
        for reason, many in without.items():
            skipped[reason] = skipped.get(reason, 0) + many


def row_group_sizes(file: BinaryIO, name: str, column: str, flags: str) -> Iterator[list[int]]:
    """Bytes of the column in each row group.

    Called in a process apart, as `row_group_texts` is: pyarrow ends the process that reads some footers.

    Args:
        file: Open, of bytes.
        name: Of the file, for messages.
        column: The column of the text.
        flags: How the flag that chooses it begins.

    Raises:
        UserError: As `spans`.
    """
    metadata = _open(file, name).metadata
    at = _column_index(metadata, name, column, flags)
    yield [metadata.row_group(k).column(at).total_uncompressed_size for k in range(metadata.num_row_groups)]


def row_group_texts(
    file: BinaryIO, name: str, start: int, stop: int, column: str, flags: str
) -> Iterator[tuple[list[str], dict[str, int]]]:
    """Texts of row groups [start, stop), some at a time, with the rows that have none by reason; see `read`."""
    parquet = _open(file, name)
    import pyarrow  # which `_open` has found

    _column_index(parquet.metadata, name, column, flags)
    for group in range(start, stop):
        try:
            for batch in parquet.iter_batches(
                _rows_at_once(parquet.metadata, group), row_groups=[group], columns=[column], use_threads=False
            ):
                yield from _texts(batch.column(0), name, column)
        except MemoryError:  # which pyarrow's is, too
            raise
        except (pyarrow.ArrowException, OSError, IndexError) as error:
            raise UserError(f"{name} is damaged in row group {group}: {first_line(error).rstrip('.')}") from error


def _open(file: BinaryIO, name: str) -> Any:
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise UserError("reading parquet needs pyarrow: pip install 'groundup[data]'") from None
    try:
        # Through a buffer, page after page: what is read ahead of need would grow with the row group.
        return ParquetFile(file, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{name} is not a whole parquet file: {first_line(error).rstrip('.')}") from error


def _column_index(metadata: Any, name: str, column: str, flags: str) -> int:
    """Place of the text column among the stored columns."""
    import pyarrow

    schema = metadata.schema.to_arrow_schema()
    kind = schema.field(find_column(schema.names, name, column, flags)).type
    text = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if str(text) not in ("string", "large_string", "string_view"):
        raise UserError(f"{name}: column {column!r} is of type {kind}, not of text; choose with {flags}text-column")
    paths = [metadata.schema.column(k).path for k in range(metadata.num_columns)]
    return paths.index(column)


def _rows_at_once(metadata: Any, group: int) -> int:
    """Rows of about BATCH_BYTES of text."""
    facts = metadata.row_group(group)
    row = facts.total_byte_size // max(1, facts.num_rows) + 1
    return max(1, min(BATCH_ROWS, BATCH_BYTES // row))


def _texts(values: Any, name: str, column: str) -> Iterator[tuple[list[str], dict[str, int]]]:
    """The texts of a column, some at a time, and why some rows have none."""
    texts: list[str] = []
    without: dict[str, int] = {}
    size = 0
    short = name.rsplit("/", 1)[-1]
    for value in values:
        if size > BATCH_BYTES:  # what a few bytes of a dictionary stand for, again and again
            yield texts, without
            texts, without, size = [], {}, 0
        try:
            text = value.as_py()
        except UnicodeDecodeError:
            count(without, f"{column} that is not UTF-8 in {short}")
            continue
        if text is None:
            count(without, f"{column} that is null in {short}")
        else:
            texts.append(text)
            size += len(text)
    yield texts, without
