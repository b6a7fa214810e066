"""The usual way to prepare a corpus: a pool of processes to which a parent feeds documents and which sends ids back.

It is that of build-nanogpt's fineweb.py, written anew: `Pool.imap` with chunks of 16 documents, one array of ids per
document, collected by the parent in a shard and written by it.
"""

import functools
import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.tokenizer.gpt2 import GPT2Tokenizer, load_gpt2

CHUNK = 16
"""Documents that a worker is sent at a time."""
SHARD_TOKENS = 100_000_000


def documents_of(folder: Path) -> Iterator[str]:
    """The texts of a folder of .jsonl files, one after the other."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                yield json.loads(line)["text"]


def pool_of_documents(texts: Path, workers: int) -> int:
    """Tokenize a folder of .jsonl files with so many processes beside the parent; returns the number of tokens."""
    _tokenizer()  # loaded before the fork, as the script does
    shard = np.empty(SHARD_TOKENS, dtype=np.uint16)
    held = written = 0
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("fork").Pool(workers) as pool:
        for ids in pool.imap(_encode, documents_of(texts), chunksize=CHUNK):
            if held + len(ids) > len(shard):
                np.save(Path(folder) / f"{written}.npy", shard[:held])
                written, held = written + held, 0
            shard[held : held + len(ids)] = ids
            held += len(ids)
        np.save(Path(folder) / f"{written}.npy", shard[:held])
        pool.close()
        pool.join()
    return written + held


@functools.cache
def _tokenizer() -> GPT2Tokenizer:
    return load_gpt2(engine="tiktoken")


def _encode(text: str) -> NDArray[np.uint16]:
    """What a worker does: the separator first, then the ids, in a Python list on the way; checked."""
    tokenizer = _tokenizer()
    ids = np.array([tokenizer.eot_id, *tokenizer.encode(text)])
    if not ((ids >= 0).all() and (ids < 1 << 16).all()):
        raise ValueError("ids do not fit")
    return ids.astype(np.uint16)
