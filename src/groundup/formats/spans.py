"""How large corpora are cut into parts: a file becomes spans, spans are gathered into parts of even size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

PART_BYTES = 32 << 20
"""Text per part: what one worker does at a time, and what is done again after a crash. Seconds of work, and few enough
files for a corpus of a trillion tokens."""
MAX_SPANS = 1024
"""Spans in one part: a part's description travels between processes."""

FileSpan = tuple[str, int, int]
"""(file, start, stop): a span of one file."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of a file that can be read on its own: bytes, row groups, or 0 to 1 for a file that is one whole."""

    start: int
    stop: int
    n_bytes: int
    """About how much text it is."""


def byte_spans(size: int) -> list[Span]:
    """Cut a file of `size` bytes into spans of at most PART_BYTES."""
    starts = range(0, max(size, 1), PART_BYTES)
    return [Span(start, min(start + PART_BYTES, size), min(PART_BYTES, size - start)) for start in starts]


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Join neighbors of one file until they reach PART_BYTES."""
    merged: list[Span] = []
    for span in spans:
        last = merged[-1] if merged else None
        if last and last.stop == span.start and last.n_bytes + span.n_bytes <= PART_BYTES:
            merged[-1] = Span(last.start, span.stop, last.n_bytes + span.n_bytes)
        else:
            merged.append(span)
    return merged


def gather(files: Iterable[tuple[str, Sequence[Span]]]) -> list[tuple[FileSpan, ...]]:
    """The parts of a corpus: large spans on their own, small ones of one or many files together.

    Args:
        files: Names and spans, in order.
    """
    parts: list[tuple[FileSpan, ...]] = []
    pieces: list[FileSpan] = []
    n_bytes = 0
    for name, spans in files:
        for span in spans:
            if pieces and (n_bytes + span.n_bytes > PART_BYTES or len(pieces) == MAX_SPANS):
                parts.append(tuple(pieces))
                pieces, n_bytes = [], 0
            pieces.append((name, span.start, span.stop))
            n_bytes += span.n_bytes
    if pieces:
        parts.append(tuple(pieces))
    return parts
