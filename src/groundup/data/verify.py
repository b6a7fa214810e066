"""Check that a dataset is still as it was prepared: every byte is read and hashed."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from groundup.config.errors import UserError, reading
from groundup.data.index import DatasetIndex, ShardInfo, load_index
from groundup.data.shards import HEADER_BYTES, ShardHeader, read_header
from groundup.files.layout import TOKENIZER
from groundup.tokenizer.io import load_tokenizer

CHUNK = 8 << 20


def verify(folder: Path) -> Iterator[tuple[str, str]]:
    """Check the index, the tokenizer, and every shard: header, SHA-256 and largest id.

    Yields:
        (file, what is wrong with it, or "") for every file of the dataset.

    Raises:
        UserError: There is no sound index, so that nothing can be said of the rest.
    """
    index = load_index(folder)
    yield TOKENIZER, _tokenizer_fault(folder, index)
    for info in index.shards:
        yield info.file, _shard_fault(folder / info.file, info, index)


def _tokenizer_fault(folder: Path, index: DatasetIndex) -> str:
    try:
        fingerprint = load_tokenizer(folder).fingerprint
    except UserError as error:
        return str(error)
    if fingerprint != index.tokenizer_fingerprint:
        return f"{folder / TOKENIZER} is not the tokenizer that these shards were made with"
    return ""


def _shard_fault(path: Path, info: ShardInfo, index: DatasetIndex) -> str:
    try:
        header = read_header(path)
        largest, sha256 = _read_all(path, header.dtype)
    except UserError as error:
        return str(error)
    if header != ShardHeader(info.n_tokens, index.vocab_size, info.max_id, index.tokenizer_fingerprint):
        return f"{path} is not the shard that the index describes: its header says otherwise"
    if sha256 != info.sha256:
        return f"{path} is damaged: its SHA-256 is not the one in the index"
    if largest != info.max_id:
        return f"{path}: its largest id is {largest}, the index says {info.max_id}"
    return ""


def _read_all(path: Path, dtype: np.dtype[np.unsignedinteger]) -> tuple[int, str]:
    """Largest id and SHA-256 of a shard, in one pass."""
    digest = hashlib.sha256()
    largest = 0
    with reading(path), path.open("rb") as file:
        digest.update(file.read(HEADER_BYTES))
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            largest = max(largest, int(np.frombuffer(chunk, dtype).max(initial=0)))
    return largest, digest.hexdigest()
