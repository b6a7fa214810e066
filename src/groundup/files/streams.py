"""Compressed files as streams of bytes, some at a time whatever a few of them unpack to."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from groundup.config.errors import UserError

CHUNK = 1 << 20
FEED = 1 << 11
"""Packed bytes of Zstandard unpacked at a time: at worst, they become 64 MB."""


class RangedFile(io.RawIOBase):
    """A file elsewhere, read by ranges.

    Args:
        fetch: Called with start and stop; returns these bytes.
        size: Of the whole.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._at = fetch, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; nothing is read."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes."""
        stop = min(self._at + len(buffer), self._size)
        if stop <= self._at:
            return 0
        data = self._fetch(self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


Unpack = Callable[[BinaryIO, str], Iterator[bytes]]


def plain(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The bytes as they are."""
    file.seek(0)
    yield from iter(lambda: file.read(CHUNK), b"")


def gunzipped(file: BinaryIO, name: str) -> Iterator[bytes]:
    """What gzip packed.

    Raises:
        UserError: The file is cut or damaged.
    """
    yield from _told(_gunzip(file), name)


def unzstd(file: BinaryIO, name: str) -> Iterator[bytes]:
    """What Zstandard packed.

    Raises:
        UserError: The file is cut or damaged, or `zstandard` is not installed.
    """
    yield from _told(_unzstd(file), name)


def _told(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Damage is reported with the place where it was found."""
    size = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            yield chunk
    except EOFError:
        raise UserError(
            f"{name} is cut: its compressed data ends early, after {size:,} bytes of text; fetch it again"
        ) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{name} is damaged after {size:,} bytes of text: {error}") from error


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield from iter(lambda: unpacked.read(CHUNK), b"")


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise UserError("reading .zst needs zstandard: pip install 'groundup[data]'") from None
    file.seek(0)
    unpacker = zstandard.ZstdDecompressor()
    # Not stream_reader: at the end of a file that was cut, it says nothing.
    frame = unpacker.decompressobj()
    try:
        while packed := file.read(FEED):
            while packed:
                if frame.eof:
                    frame = unpacker.decompressobj()
                chunk = frame.decompress(packed)
                for at in range(0, len(chunk), CHUNK):
                    yield chunk[at : at + CHUNK]
                packed = frame.unused_data
    except zstandard.ZstdError as error:
        raise zlib.error(str(error)) from error
    if not frame.eof:
        raise EOFError
