"""A prepared folder, opened: index.json, tokenizer.json and shards."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from groundup.config.errors import UserError
from groundup.data.index import DatasetIndex, ShardInfo, load_index
from groundup.data.shards import ShardHeader, ShardReader, id_dtype, sample_hash
from groundup.files.layout import INDEX, TOKENIZER
from groundup.files.manifest import SAMPLES, sha256_file
from groundup.formats.document import SplitName
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.io import load_tokenizer

HASHED_BYTES = 256 << 20
"""Splits up to this size are hashed whole before they are used."""
OPEN_SHARDS = 32
"""Most files held open: a window of the training order needs a few shards, a corpus may have thousands."""


class Split:
    """The shards of one split, read by position.

    Args:
        folder: Where they lie.
        infos: Their entries in the index.
        fingerprint: Of the whole dataset.
    """

    def __init__(self, folder: Path, infos: tuple[ShardInfo, ...], fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.shards = [ShardReader(folder / info.file) for info in infos]
        self.n_tokens = sum(info.n_tokens for info in infos)
        self.n_bytes = sum(info.n_bytes for info in infos)
        self._open: dict[int, ShardReader] = {}
        """Shards with an open file, the one used last at the end."""

    def read(self, shard: int, start: int, count: int) -> NDArray[np.unsignedinteger]:
        """Ids [start, start + count) of one shard."""
        return self._use(shard).read(start, count)

    def announce(self, shard: int, start: int, count: int) -> None:
        """Ask the system to read ids [start, start + count) of one shard in the background."""
        self._use(shard).announce(start, count)

    def _use(self, shard: int) -> ShardReader:
        """The reader of a shard; the one used longest ago is closed where too many are open."""
        if shard not in self._open and len(self._open) >= OPEN_SHARDS:
            self._open.pop(next(iter(self._open))).close()
        reader = self._open[shard] = self._open.pop(shard, self.shards[shard])
        return reader

    def read_all(self) -> NDArray[np.unsignedinteger]:
        """All ids of the split, shard after shard."""
        return np.concatenate([self.read(k, 0, len(shard)) for k, shard in enumerate(self.shards)])


class TokenDataset:
    """A dataset on disk whose headers agree with its index. `check` compares contents, `data.verify` every byte.

    Args:
        folder: Made by `prepare`.

    Raises:
        UserError: A file is missing, cut, or of another dataset; it is named.
    """

    def __init__(self, folder: Path) -> None:
        self.dir = folder
        self.index: DatasetIndex = load_index(folder)
        again = f"remove {folder} and prepare it again (groundup data verify names every such file)"
        for info in self.index.shards:
            try:
                header = ShardReader(folder / info.file).header
            except UserError as error:
                raise UserError(f"{error}; {again}") from None
            said = ShardHeader(info.n_tokens, self.index.vocab_size, info.max_id, self.index.tokenizer_fingerprint)
            if header != said:
                raise UserError(f"{folder / info.file} is not the shard that {folder / INDEX} describes; {again}")

    def check(self) -> str:
        """Compare the shards with what was prepared: all bytes of a small split, sixteen places of a large one.

        Returns:
            What was compared, in words.

        Raises:
            UserError: A shard holds something else; it is named.
        """
        whole: list[ShardInfo] = []
        sampled: list[ShardInfo] = []
        unknown: list[ShardInfo] = []
        for split in ("train", "val"):
            infos = [info for info in self.index.shards if info.split == split]
            sizes = sum(info.n_tokens for info in infos) * id_dtype(self.index.vocab_size).itemsize
            for info in infos:
                path = self.dir / info.file
                if sizes <= HASHED_BYTES:
                    whole.append(info)
                    same = sha256_file(path) == info.sha256
                else:
                    (sampled if info.sample else unknown).append(info)
                    same = not info.sample or sample_hash(path) == info.sample
                if not same:
                    raise UserError(
                        f"{path} is not what was prepared: its contents have another hash than {INDEX} says;"
                        f" remove {self.dir} and prepare it again (groundup data verify names every such file)"
                    )
        words = [
            f"{len(infos):,} shards {how}"
            for infos, how in (
                (whole, "compared whole by SHA-256"),
                (sampled, f"compared at {SAMPLES} places"),
                (unknown, "not compared: an older version prepared them (see groundup data verify)"),
            )
            if infos
        ]
        return f"data in {self.dir}: {', '.join(words)}"

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the ids.

        Raises:
            UserError: It is missing, or another one.
        """
        tokenizer = load_tokenizer(self.dir)
        if tokenizer.fingerprint != self.index.tokenizer_fingerprint:
            raise UserError(f"{self.dir / TOKENIZER} is not the tokenizer that these shards were made with")
        return tokenizer

    def split(self, name: SplitName) -> Split:
        """One split.

        Raises:
            UserError: The dataset has no such split.
        """
        infos = tuple(info for info in self.index.shards if info.split == name)
        if not infos:
            raise UserError(f"{self.dir} has no {name} split")
        return Split(self.dir, infos, self.index.fingerprint)
