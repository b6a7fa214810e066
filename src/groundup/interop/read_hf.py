"""A Hugging Face folder: config.json with safetensors, sharded safetensors or pytorch_model.bin."""

import dataclasses
from pathlib import Path

from torch import Tensor

from groundup.checkpoint.tensor_file import load_tensors
from groundup.config.errors import UserError
from groundup.config.io import load_json, refuse_pointer
from groundup.config.model import ModernConfig
from groundup.files.foreign import other_programs
from groundup.files.layout import CONFIG, WEIGHTS, is_plain_name
from groundup.files.manifest import MANIFEST, read_manifest, sha256_file
from groundup.interop.hf_config import read_hf_config, scaled_queries
from groundup.interop.imported import Imported, load_pickled, plain_tensors
from groundup.interop.names import HEAD, to_ours

INDEX, PICKLED, PICKLED_INDEX = "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"


def read_hf_folder(folder: Path) -> Imported:
    """Read config and weights of a GPT-2.

    Raises:
        UserError: A file is missing or damaged, or the model is not a GPT-2 as we build it.
    """
    path = folder / CONFIG
    values = load_json(path)
    config = read_hf_config(values, str(path))
    theirs = plain_tensors(_read_weights(folder), str(folder))
    state = to_ours(theirs, str(folder))
    both = "wte.weight", "lm_head.weight"
    lacks = [name for name in both if not any(theirs_name.endswith(name) for theirs_name in theirs)]
    if lacks and not values.get("tie_word_embeddings", True):
        raise UserError(
            f"{path} says tie_word_embeddings false, and there is no {lacks[0]}; if {both[0]} is the head as well, set"
            " tie_word_embeddings to true"
        )
    if HEAD in state:
        config = dataclasses.replace(ModernConfig.of(config), tied_head=False)
    scaled = scaled_queries(values, config, state)
    note = (
        "" if scaled is state else "its scale of attention stands in the weights that make queries, for ours has none"
    )
    return Imported(config, scaled, {}, note)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of the first of the known files that is there."""
    if (folder / WEIGHTS).is_file():
        _refuse_damaged(folder)
        return load_tensors(folder / WEIGHTS)
    if (folder / INDEX).is_file():
        return _read_shards(folder, INDEX)
    if (folder / PICKLED).is_file():
        return _read_pickled(folder / PICKLED)
    if (folder / PICKLED_INDEX).is_file():
        return _read_shards(folder, PICKLED_INDEX)
    if theirs := other_programs(folder):
        raise UserError(theirs)
    raise UserError(f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX} nor {PICKLED} is in it")


def _refuse_damaged(folder: Path) -> None:
    """Weights that `groundup export` wrote have their hash beside them.

    Raises:
        UserError: They have another.
    """
    try:
        known = read_manifest(folder).get(WEIGHTS)
    except UserError:  # there is none, or it is of another program
        return
    if known is not None and sha256_file(folder / WEIGHTS) != known["sha256"]:
        refuse_pointer(folder / WEIGHTS)
        raise UserError(
            f"{folder / WEIGHTS} is damaged, or was changed: its SHA-256 is not the one in {MANIFEST}; export it again,"
            f" or remove {folder / MANIFEST} if the change is meant"
        )


def _read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    """The tensors an index spreads over files, each from the file it names."""
    values = load_json(folder / index)
    places = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(places, dict) or not places or not all(map(is_plain_name, places.values())):
        raise UserError(f"{folder / index} is not an index: its weight_map must name files of its folder")
    state: dict[str, Tensor] = {}
    for file in sorted(set(places.values())):
        shard = (_read_pickled if index == PICKLED_INDEX else load_tensors)(folder / file)
        wanted = [name for name, place in places.items() if place == file]
        if missing := [name for name in wanted if name not in shard]:
            raise UserError(f"{folder / file} lacks {', '.join(missing)}, which {index} says is in it")
        state.update({name: shard[name] for name in wanted})
    return state


def _read_pickled(path: Path) -> dict[str, Tensor]:
    return plain_tensors(load_pickled(path), str(path))
