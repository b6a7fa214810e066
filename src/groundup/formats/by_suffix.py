"""File formats by suffix: how a file of documents is cut into spans, and how a span is read."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, cast

from groundup.config.data import ReadConfig
from groundup.config.errors import UsageError, UserError
from groundup.files.streams import Unpack, gunzipped, plain, unzstd
from groundup.formats import jsonl, parquet, plain_text, table
from groundup.formats.decode import line_ends
from groundup.formats.document import Document, UnreadableError, count
from groundup.formats.spans import FileSpan, Span, byte_spans

COMPRESSION = 4
"""About how much larger text is than its compressed form."""

Stream = Callable[[Iterable[bytes], str, ReadConfig, dict[str, int]], Iterator[Document]]
"""(chunks, name, config, skipped) to the documents of a file that is read from its beginning."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format, as functions of an open file of bytes."""

    spans: Callable[[int, Callable[[], BinaryIO], str, ReadConfig], list[Span]]
    """(bytes, a call that opens it, name, config) to the spans of a file, which most formats need not open for that."""
    read: Callable[[BinaryIO, str, tuple[int, int], ReadConfig, dict[str, int]], Iterator[Document]]
    """(file, name, span, config, skipped) to documents."""


def _as_stream(
    stream: Stream,
    unpack: Unpack,
    file: BinaryIO,
    name: str,
    span: tuple[int, int],
    config: ReadConfig,
    skipped: dict[str, int],
) -> Iterator[Document]:
    yield from stream(unpack(file, name), name, config, skipped)


def _streamed(stream: Stream, unpack: Unpack) -> Format:
    """A file that is one span."""
    times = 1 if unpack is plain else COMPRESSION
    return Format(lambda n_bytes, *_: [Span(0, 1, times * n_bytes)], partial(_as_stream, stream, unpack))


def _parquet_spans(n_bytes: int, opened: Callable[[], BinaryIO], name: str, config: ReadConfig) -> list[Span]:
    with opened() as file:
        return parquet.spans(file, name, config)


def _parquet_stream(
    chunks: Iterable[bytes], name: str, config: ReadConfig, skipped: dict[str, int]
) -> Iterator[Document]:
    """Parquet is read from its end: what is packed once more goes to a temporary file first."""
    with tempfile.TemporaryFile() as whole:
        for chunk in chunks:
            whole.write(chunk)
        file = cast("BinaryIO", whole)
        for span in parquet.spans(file, name, config):
            yield from parquet.read(file, name, (span.start, span.stop), config, skipped)


_TEXT = Format(lambda n_bytes, *_: plain_text.spans(n_bytes), plain_text.read)
_PLAIN = {
    ".txt": _TEXT,
    ".md": _TEXT,
    ".jsonl": Format(lambda n_bytes, *_: byte_spans(n_bytes), jsonl.read_plain),
    ".json": _streamed(jsonl.read_json, plain),
    ".csv": _streamed(table.read_csv, plain),
    ".tsv": _streamed(table.read_tsv, plain),
    ".parquet": Format(_parquet_spans, parquet.read),
}
_STREAMS: dict[str, Stream] = {
    ".txt": plain_text.read_stream,
    ".md": plain_text.read_stream,
    ".jsonl": jsonl.read_lines,
    ".json": jsonl.read_json,
    ".csv": table.read_csv,
    ".tsv": table.read_tsv,
    ".parquet": _parquet_stream,
}
_PACKED: dict[str, Unpack] = {".gz": gunzipped, ".zst": unzstd}
FORMATS = _PLAIN | {
    suffix + packed: _streamed(stream, unpack)
    for suffix, stream in _STREAMS.items()
    for packed, unpack in _PACKED.items()
}
SAID = f"{', '.join(_PLAIN)}, each also with {' or '.join(_PACKED)}"


_RECORDS = frozenset(FORMATS) - {suffix for suffix in FORMATS if suffix.startswith((".txt", ".md"))}
_UNPACKED = {
    ".xz": "with xz -d",
    ".bz2": "with bunzip2",
    ".zip": "with unzip",
    ".7z": "with 7z x",
    ".rar": "with unrar x",
    ".tar": "with tar -xf",
    ".tgz": "with tar -xf",
    ".pdf": "with pdftotext",
    ".docx": "by saving it as text",
    ".epub": "by saving it as text",
}
"""What is not text, and how it becomes some."""


def text_bytes(name: str, n_bytes: int) -> int:
    """About how many bytes of text a file of so many bytes holds."""
    return n_bytes * (COMPRESSION if name.lower().endswith(tuple(_PACKED)) else 1)


def has_format(name: str, text_suffixes: Sequence[str] = ()) -> bool:
    """Whether a file can be read, by its name."""
    return _find(name, text_suffixes) is not None


def format_of(name: str, config: ReadConfig | None = None) -> Format:
    """The format of a file.

    Args:
        name: Of the file.
        config: Names endings of more files to read as plain text.

    Raises:
        UserError: Its suffix is none of ours.
    """
    config = config or ReadConfig()
    for suffix in config.text_suffixes:
        if suffix.lower() in _RECORDS:
            raise UsageError(
                f"{config.FLAGS}text-suffixes {suffix}: such files hold records, which are no prose;"
                f" {config.FLAGS}text-column names the text in them"
            )
    if found := _find(name, config.text_suffixes):
        return found
    raise UserError(f"cannot tell the format of {name}; files end with {SAID}{advice(name, config)}")


def advice(name: str, config: ReadConfig) -> str:
    """How a file of another ending can be read, as the end of a message."""
    base = name.rsplit("/", 1)[-1].removesuffix(".gz").removesuffix(".zst")
    suffix = base[base.rindex(".") :] if "." in base[1:] else ""
    if suffix.lower() in _UNPACKED:
        return f"; unpack it first, {_UNPACKED[suffix.lower()]}"
    return f"; {config.FLAGS}text-suffixes {suffix} reads such files as plain text" if suffix else ""


def _find(name: str, text_suffixes: Sequence[str]) -> Format | None:
    if not text_suffixes and (usual := FORMATS.get(name[name.rfind(".") :])):
        return usual  # of millions of names, nearly all
    stem, dot, last = name.lower().rpartition(".")
    packed = dot + last if dot + last in _PACKED else ""
    if not packed:
        stem += dot + last
    if text_suffixes and stem.endswith(tuple(suffix.lower() for suffix in text_suffixes)):
        return FORMATS[f".txt{packed}"]
    _, dot, last = stem.rpartition(".")
    return FORMATS.get(dot + last + packed)


def read_spans(
    part: Iterable[FileSpan],
    opened: Callable[[str], BinaryIO],
    said: Callable[[str], str],
    form: Callable[[str], Format],
    config: ReadConfig,
    skipped: dict[str, int],
) -> Iterator[Document]:
    """The documents of some spans of files, with one kind of line end.

    Args:
        part: The spans.
        opened: Opens a file by its name.
        said: What messages call it.
        form: Its format.
        config: How files are read.
        skipped: Records, and files where the config says so, that cannot be used are counted here by reason.

    Raises:
        UnreadableError: In the end, where files could not be read: all of them are named.
    """
    faults = []
    begun: Document | None = None
    for name, start, stop in part:
        begun = begun if start else None  # spans of a file follow each other
        try:
            with opened(name) as file:
                for document in form(name).read(file, said(name), (start, stop), config, skipped):
                    begun = None if document.ends else document
                    yield replace(document, text=line_ends(document.text)) if "\r" in document.text else document
        except UserError as error:
            if config.bad_files == "skip":
                count(skipped, f"file that cannot be read: {error}")
                if begun:  # no other document goes on from what was read of it
                    yield Document("", begun.split, beginning=begun.beginning)
                    begun = None
            else:
                faults.append(str(error))
    if faults:
        raise UnreadableError(faults, f"{config.FLAGS}bad-files skip")
