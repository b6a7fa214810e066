"""Tensors of which each rank has a share: every rank writes and reads its own, no rank holds the whole.

`torch.distributed.checkpoint` does it, with its safetensors storage: a file for each rank, whose JSON header says where
in the whole tensor each piece lies, so that any number of ranks can read them again. Its usual storage keeps such
things in a pickle (`.metadata`), which runs whatever code somebody has put there; this one has none.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from torch import Tensor

from groundup.checkpoint.state import CheckpointStore, Contents
from groundup.config.errors import UserError
from groundup.distributed.ranks import World
from groundup.files.manifest import Facts, read_manifest, sha256_file

_PREFIX = "shard-"


def save_with_shares(
    store: CheckpointStore, contents: Contents | None, own_shares: dict[str, Tensor], world: World
) -> None:
    """Save a checkpoint of which each rank writes its shares; all ranks must call it.

    Args:
        store: Where checkpoints go.
        contents: What rank 0 saves, which makes the folder; None on the other ranks.
        own_shares: What this rank has a share of.
        world: The ranks.
    """
    if contents is None:
        write_shares(Path(world.broadcast(None)), own_shares, world)
        return
    store.save(contents, lambda folder: write_shares(Path(world.broadcast(str(folder))), own_shares, world))


def write_shares(folder: Path, tensors: dict[str, Tensor], world: World) -> dict[str, Facts]:
    """Write this rank's shares of tensors into a folder that all ranks see; all ranks must call it.

    Returns:
        Sizes and hashes of the files of all ranks: each hashes its own.

    Raises:
        UserError: The disk refuses a rank; all ranks hear of it.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.state_dict_saver import save

    writer = _storage().HuggingFaceStorageWriter(str(folder), save_distributed=True)
    own = folder / _name(world.rank)
    try:
        save({f"share/{name}": tensors[name] for name in sorted(tensors)}, storage_writer=writer)
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        raise UserError(f"cannot write {folder}: rank {rank}: {getattr(reason, 'strerror', None) or reason}") from error
    facts = torch.zeros(33, dtype=torch.int64)  # a rank that has no share of anything writes no file
    if own.exists():
        facts[0] = own.stat().st_size
        facts[1:] = torch.tensor(list(bytes.fromhex(sha256_file(own))))
    return {
        _name(rank): {"bytes": int(size), "sha256": bytes(digest).hex()}
        for rank, (size, *digest) in enumerate(each.tolist() for each in world.gather(facts))
        if size
    }


def has_shares(folder: Path) -> bool:
    """Whether ranks have written shares into a checkpoint."""
    return any(name.startswith(_PREFIX) for name in read_manifest(folder))


def read_shares(folder: Path, part: str, like: Callable[[str], Tensor], world: World) -> dict[str, Tensor]:
    """Read what this rank holds of the tensors of a part; all ranks must call it.

    Args:
        folder: A checkpoint whose files have been checked.
        part: What the names of the tensors begin with, before a slash.
        like: From the name of a tensor to one as this rank holds it: a share of the same shape, or all of it.
        world: The ranks, as many as there are now.

    Raises:
        UserError: The folder has files that its manifest does not know, or they do not fit.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    known = read_manifest(folder)
    if foreign := sorted(file.name for file in folder.glob("*.safetensors") if file.name not in known):
        raise UserError(f"{folder} is not as it was written: its manifest does not know {', '.join(foreign)}")
    reader = _storage().HuggingFaceStorageReader(str(folder))
    begin = f"share/{part}/"  # the reader sees all tensors of the folder, the model's too
    tensors: dict[str, Tensor] = {}
    try:
        for name, entry in reader.read_metadata().state_dict_metadata.items():
            if not name.startswith(begin) or not isinstance(entry, TensorStorageMetadata):
                continue
            whole = like(name.removeprefix(begin))
            if whole.shape != entry.size:
                raise ValueError(f"{name} is {tuple(entry.size)} instead of {tuple(whole.shape)}")
            tensors[name] = torch.empty_like(whole, dtype=entry.properties.dtype)
        load(tensors, storage_reader=reader, no_dist=world.size == 1)
    except (CheckpointException, SafetensorError, OSError, LookupError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"cannot read the shares of {part} in {folder}: {reason}") from error
    return {name.removeprefix(begin): tensor for name, tensor in tensors.items()}


def _storage() -> ModuleType:
    """PyTorch's storage of safetensors, which is younger than the PyTorch that all else needs.

    Raises:
        UserError: This PyTorch has none.
    """
    try:
        from torch.distributed.checkpoint import hf_storage
    except ImportError as error:
        raise UserError(
            f"PyTorch {torch.__version__} cannot save what ranks share; take a newer one, or --runtime.parallel ddp"
        ) from error
    return hf_storage


def _name(rank: int) -> str:
    """What torch calls a rank's file."""
    return f"{_PREFIX}{rank + 1:05d}-model-00001-of-00001.safetensors"
