"""Writing so that a crash at any moment leaves the old or the new, never half of either.

Checkpoints, model folders, datasets and records are written by the functions of this file. A folder is made
under a temporary name, each of its files is fsynced, a manifest with their SHA-256 is written last, and only then does
the folder get its name. Removal goes the other way round: first the name, then the contents.
"""

import contextlib
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from groundup.config.errors import UserError
from groundup.files.layout import resolved
from groundup.files.leftovers import remove_leftover, sweep_dead, sweep_dead_once, temporary_name
from groundup.files.manifest import MANIFEST, Facts, file_facts, manifest_json

_PIECE = 64 * 2**20


def fault_point(operation: str, path: Path) -> None:
    """Called before every operation on the disk; tests replace it to fail or to crash there."""


def write_file(path: Path, data: bytes) -> None:
    """Replace a whole file at once.

    Raises:
        UserError: The disk refuses; the old file is as it was.
    """
    temporary = temporary_name(path)
    sweep_dead_once(path.parent)
    try:
        with _explained(path):
            write_synced(temporary, data)
            _rename(temporary, path)
            _sync_folder(path.parent)
    finally:
        remove_leftover(temporary)


@contextlib.contextmanager
def atomic_stream(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece; it gets its name, fsynced, when the `with` block ends well.

    Raises:
        UserError: The disk refuses; `path` is then as it was: the old file, or none.
    """
    temporary = temporary_name(path)
    sweep_dead_once(path.parent)
    try:
        with _explained(path):
            fault_point("open", temporary)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                fault_point("fsync", temporary)
                _flush(file.fileno())
            _rename(temporary, path)
            _sync_folder(path.parent)
    finally:
        remove_leftover(temporary)


def make_folder(path: Path, *, alone: bool = False) -> None:
    """Make a folder, and those above it that are missing, so that they survive a power cut.

    Args:
        path: The folder.
        alone: Make none above it: one that was moved away must not come back as a hollow one.

    Raises:
        UserError: The disk refuses, there is a file of this name, or a folder above it is missing and not to be made.
    """
    if path.is_dir():
        return
    if path.is_file():
        raise UserError(f"{path} is a file where a folder is needed; name another")
    if not alone:
        make_folder(path.parent)
    with _explained(path):
        fault_point("mkdir", path)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


@contextlib.contextmanager
def made_for(folder: Path) -> Iterator[None]:
    """`make_folder` for a `with` block; where the block fails, what was made for it, and is empty, is gone again.

    Raises:
        UserError: As `make_folder`.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    make_folder(folder)
    try:
        yield
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError):
                each.rmdir()
        raise


@contextlib.contextmanager
def new_folder(path: Path, known: dict[str, Facts] | None = None) -> Iterator[Path]:
    """Fill a temporary folder in the `with` block; it becomes `path`, with a manifest, when the block ends well.

    A folder that already has the name is replaced; between the two renames its old contents lie under
    `.old-NAME`, where `recover` finds them. A link stays: the folder is made where it leads.

    Args:
        path: The name it gets.
        known: Facts of files that were hashed and fsynced while they were written, added to inside the block; every
            other file is read again.

    Raises:
        UserError: The disk refuses; what was there before is still there.
    """
    path = _behind_link(path)
    temporary = temporary_name(path)
    old = path.with_name(f".old-{path.name}")
    with made_for(path.parent), _explained(path):
        recover(path)
        remove_folder(old)  # a crash came after the second rename
        sweep_dead(path.parent)
        remove_leftover(temporary)
        try:
            fault_point("mkdir", temporary)
            temporary.mkdir()
            yield temporary
            _seal(temporary, known or {})
            if path.exists():
                _rename(path, old)
            _rename(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            remove_leftover(temporary)
            recover(path)
            raise
        remove_folder(old)


def recover(path: Path) -> None:
    """Undo a replacement that a crash cut between its two renames."""
    path = _behind_link(path)
    old = path.with_name(f".old-{path.name}")
    if old.exists() and not path.exists():
        old.rename(path)


def _behind_link(path: Path) -> Path:
    return resolved(path) if path.is_symlink() else path


def _seal(folder: Path, known: dict[str, Facts]) -> None:
    """Fsync every file and write the manifest with their hashes."""
    files = {}
    for file in sorted(folder.iterdir()):
        if file.name not in known:
            _sync_file(file)
        files[file.name] = known.get(file.name) or file_facts(file)
    write_synced(folder / MANIFEST, manifest_json(files).encode())
    _sync_folder(folder)


def remove_folder(path: Path) -> None:
    """Delete a folder: its name goes first, so that no crash leaves half of it under that name. Of a link, no more."""
    if not path.exists():
        return
    trash = temporary_name(path, "trash")
    with _explained(path):
        if path.is_symlink():
            path.unlink()
            return
        remove_leftover(trash)  # of a killed process of this number, which comes again in a container
        _rename(path, trash)
        fault_point("rmtree", trash)
        shutil.rmtree(trash)


def sweep(parent: Path) -> None:
    """Remove what crashed writers left in a folder. Only the holder of the run's lock may call this."""
    for leftover in [*parent.glob(".tmp-*"), *parent.glob(".trash-*")]:
        remove_leftover(leftover)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and make it durable; only for files in a folder that has no name yet."""
    fault_point("open", path)
    with path.open("wb") as file:
        fault_point("write", path)
        file.write(data)
        file.flush()
        fault_point("fsync", path)
        _flush(file.fileno())


def write_hashed(path: Path, parts: Sequence[memoryview]) -> Facts:
    """Write a new file and make it durable, as `write_synced` does, while another thread hashes the same memory.

    The hash is that of what was meant to be written: a byte that changes on its way to the disk is found by its
    next reader. The memory must not change meanwhile.

    Returns:
        What a manifest says of the file.
    """
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(_sha256_parts, parts)
        fault_point("open", path)
        with path.open("wb", buffering=0) as file:
            for piece in _pieces(parts):
                fault_point("write", path)
                _write_all(file, piece)
                if piece.nbytes == _PIECE:
                    _let_go(file)
            fault_point("fsync", path)
            _flush(file.fileno())
        return {"bytes": sum(part.nbytes for part in parts), "sha256": digest.result()}


def _pieces(parts: Sequence[memoryview]) -> Iterator[memoryview]:
    """Cut what is large, so that the disk works from the first piece on."""
    for part in parts:
        for start in range(0, part.nbytes, _PIECE):
            yield part[start : start + _PIECE]


def _write_all(file: FileIO, piece: memoryview) -> None:
    while piece.nbytes:
        piece = piece[file.write(piece) :]  # a disk that is nearly full takes a part, and refuses the next


def _let_go(file: FileIO) -> None:
    """Write out what the system holds of a file, and take it from its cache.

    A checkpoint is rarely read soon. In the cache it would take memory that must be found page by page (on some virtual
    machines slower than any disk: 1.5 GB in 5 s instead of 1), at the cost of data that training reads.
    """
    if hasattr(os, "posix_fadvise"):
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sha256_parts(parts: Sequence[memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)  # lets other threads work: hashlib frees the interpreter for all but the smallest
    return digest.hexdigest()


def _sync_file(path: Path) -> None:
    fault_point("fsync", path)
    with path.open("rb" if os.name == "posix" else "r+b") as file:  # Windows flushes only what may be written
        _flush(file.fileno())


def _flush(descriptor: int) -> None:
    """See the bytes of a file on the disk: on macOS fsync leaves them in the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):  # a disk of the network knows only fsync
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def _rename(old: Path, new: Path) -> None:
    fault_point("rename", new)
    old.replace(new)


def _sync_folder(path: Path) -> None:
    """Make a rename durable. Windows cannot open folders, and needs it not."""
    if os.name != "posix":
        return
    fault_point("fsync", path)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn the disk's refusal into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
