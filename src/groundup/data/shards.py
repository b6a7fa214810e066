"""A shard: a header that describes the contents, then token ids, little-endian.

| bytes | content |
|---|---|
| 0-7 | magic `GRUPSHRD` |
| 8-11 | format version, 1 |
| 12-15 | bytes per id: 2, or 4 where the vocabulary passes 65,536 |
| 16-23 | number of ids |
| 24-31 | vocabulary size |
| 32-39 | largest id |
| 40-71 | fingerprint of the tokenizer |
| 72-255 | zero |
"""

import contextlib
import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.config.errors import UserError, reading
from groundup.files.atomic import write_file
from groundup.files.manifest import sample_digest

MAGIC = b"GRUPSHRD"
VERSION = 1
HEADER_BYTES = 256
_SEEKING = threading.Lock()
_LAYOUT = struct.Struct("<8sIIQQQ32s")


def id_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger]:
    """The smallest type that holds every id: uint16 up to 65,536 ids, else uint32."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """The facts in a shard's header."""

    n_tokens: int
    vocab_size: int
    max_id: int
    fingerprint: str
    """SHA-256 of the tokenizer, in hex."""

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """Type of the ids on disk."""
        return id_dtype(self.vocab_size)

    @property
    def file_bytes(self) -> int:
        """Size that the whole file must have."""
        return HEADER_BYTES + self.n_tokens * self.dtype.itemsize

    def pack(self) -> bytes:
        """The header as bytes."""
        fingerprint = bytes.fromhex(self.fingerprint)
        fields = (MAGIC, VERSION, self.dtype.itemsize, self.n_tokens, self.vocab_size, self.max_id, fingerprint)
        return _LAYOUT.pack(*fields).ljust(HEADER_BYTES, b"\0")


def read_header(path: Path) -> ShardHeader:
    """Read and check the header of a shard against the file's size.

    Raises:
        UserError: Not readable, not a shard, of a newer version, or cut.
    """
    with reading(path), path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise UserError(f"{path} is not a token shard: it does not begin with a groundup header")
    _, version, width, n_tokens, vocab_size, max_id, fingerprint = _LAYOUT.unpack_from(head)
    if version != VERSION:
        raise UserError(f"{path} has shard version {version}; this groundup reads version {VERSION}")
    header = ShardHeader(n_tokens, vocab_size, max_id, fingerprint.hex())
    if width != header.dtype.itemsize or any(head[_LAYOUT.size :]):
        raise UserError(f"{path} is damaged: its header does not agree with itself")
    if size != header.file_bytes:
        raise UserError(f"{path} is damaged: {size:,} bytes instead of {header.file_bytes:,}")
    if n_tokens and max_id >= vocab_size:
        raise UserError(f"{path} is damaged: its largest id {max_id} is outside the vocabulary of {vocab_size}")
    return header


def sample_hash(path: Path) -> str:
    """`sample_digest` of a file, in hex.

    It finds shards that were exchanged, cut or zeroed; of a single changed byte, only one within a block.

    Raises:
        UserError: The file cannot be read.
    """
    with reading(path), path.open("rb") as file:
        return sample_digest(file).hex()


def write_shard(path: Path, ids: NDArray[np.integer], *, vocab_size: int, fingerprint: str) -> ShardHeader:
    """Write a shard that fits in memory.

    Raises:
        UserError: The disk refuses.
        ValueError: An id is outside the vocabulary.
    """
    largest = int(ids.max(initial=0))
    if len(ids) and not 0 <= ids.min() <= largest < vocab_size:
        raise ValueError(f"ids from {ids.min()} to {largest} do not fit a vocabulary of {vocab_size}")
    header = ShardHeader(len(ids), vocab_size, largest, fingerprint)
    write_file(path, header.pack() + ids.astype(header.dtype).tobytes())
    return header


class ShardReader:
    """Reads ranges of one shard, the file opened at the first read.

    It reads into memory instead of mapping the file: a mapped file that shrinks kills the process with SIGBUS, a
    short read is an error that can be reported.
    """

    def __init__(self, path: Path) -> None:
        self._file: int | None = None
        self.path = path
        self.header = read_header(path)

    def __len__(self) -> int:
        return self.header.n_tokens

    def read(self, start: int, count: int) -> NDArray[np.unsignedinteger]:
        """Ids [start, start + count).

        Raises:
            UserError: The file can no longer be read, has shrunk, or holds an id that it should not.
        """
        if not 0 <= start <= start + count <= len(self):
            raise IndexError(f"tokens {start} to {start + count} of {len(self)}")
        dtype = self.header.dtype
        try:
            data = _read_exactly(self._opened(), count * dtype.itemsize, HEADER_BYTES + start * dtype.itemsize)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}") from error
        if len(data) != count * dtype.itemsize:
            raise UserError(f"{self.path} shrank while it was in use; prepare the data again")
        ids = np.frombuffer(data, dtype=dtype)
        if ids.max(initial=0) > self.header.max_id:  # an embedding would be read beyond its end
            raise UserError(
                f"{self.path} is damaged: it holds the id {ids.max()}, and its largest should be"
                f" {self.header.max_id}; see groundup data verify {self.path.parent}"
            )
        return ids

    def announce(self, start: int, count: int) -> None:
        """Ask the system to read ids [start, start + count) in the background, where it supports that."""
        width = self.header.dtype.itemsize
        if hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # the read that follows reports the error
                os.posix_fadvise(self._opened(), HEADER_BYTES + start * width, count * width, os.POSIX_FADV_WILLNEED)

    def _opened(self) -> int:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        return self._file

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()


def _read_exactly(file: int, count: int, offset: int) -> bytes:
    """One system call may return less than asked for (2 GiB is its limit): go on until the end of the file."""
    pieces = []
    while count:
        piece = _read_at(file, count, offset)
        if not piece:
            break
        pieces.append(piece)
        count -= len(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_at(file: int, count: int, offset: int) -> bytes:
    """Bytes from a place of a file. Windows has no pread: there, threads take turns to move the file's one position."""
    if hasattr(os, "pread"):
        return os.pread(file, count, offset)
    with _SEEKING:
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, count)
