"""llm.c's model file: 256 int32, then every parameter in the order of `interop.names`, all of one type."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from groundup.config.errors import UserError, reading
from groundup.config.model import GPTConfig
from groundup.interop.imported import Imported, gpt_config
from groundup.interop.names import names
from groundup.model.build import empty_model
from groundup.planner.params import count_parameters

MAGIC = 20240326
HEADER_BYTES = 256 * 4
DTYPES = {3: torch.float32, 5: torch.bfloat16}
"""By version: both have a padded vocabulary."""


def read_llmc(path: Path) -> Imported:
    """Read a model that llm.c's train_gpt2.py or train_gpt2.cu wrote.

    Raises:
        UserError: It is not such a file, of another version, or not as long as its header says.
    """
    with reading(path):
        if not path.is_file():
            raise UserError(f"cannot read {path}: it is not a file")
        header = np.fromfile(path, dtype="<i4", count=HEADER_BYTES // 4)
    if len(header) < HEADER_BYTES // 4:
        header = np.zeros(HEADER_BYTES // 4, dtype="<i4")
    magic, version, block_size, vocab_size, n_layer, n_head, n_embd, padded = map(int, header[:8])
    if magic != MAGIC:
        raise UserError(f"{path} is not a model of llm.c: it does not begin with {MAGIC}")
    if version not in DTYPES:
        raise UserError(f"{path} has version {version} of llm.c's format; 3 (float32) and 5 (bfloat16) are known")
    if not 0 < vocab_size <= padded:
        raise UserError(f"{path} is damaged: {vocab_size} ids in {padded} rows")
    shape = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "block_size": block_size, "vocab_size": padded}
    config = gpt_config(shape, f"the header of {path} is damaged")
    assert isinstance(config, GPTConfig)  # for no switch was named
    state = _read(path, config, DTYPES[version])
    state["wte.weight"] = state["wte.weight"][:vocab_size]
    return Imported(dataclasses.replace(config, vocab_size=vocab_size), state, {})


def _read(path: Path, config: GPTConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """The bytes after the header as named tensors."""
    # Before anything is read or built: a damaged header can ask for a model of any size.
    wanted, found = count_parameters(config) * dtype.itemsize, path.stat().st_size - HEADER_BYTES
    if found != wanted:
        raise UserError(f"{path} is damaged: {found:,} bytes of weights, its header describes {wanted:,}")
    data = np.fromfile(path, dtype=np.uint8, offset=HEADER_BYTES)
    shapes = {name: tensor.shape for name, tensor in empty_model(config).state_dict().items()}
    state, start = {}, 0
    for name in (n.ours for n in names(config.n_layer)):
        end = start + shapes[name].numel() * dtype.itemsize
        state[name] = torch.from_numpy(data[start:end]).view(dtype).view(shapes[name])
        start = end
    return state
