"""Safetensors files, written so that they are hashed on the way and never held in memory twice.

The library that reads them writes them, too, but hands out no bytes to hash: a checkpoint would have to be read again
for its manifest. The format is small: the length of a JSON header (8 bytes, little-endian), the header, then the data
of all tensors without gaps. What is written here is, byte for byte, what `safetensors.torch.save_file` writes.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.io import refuse_pointer
from groundup.files.atomic import write_hashed
from groundup.files.manifest import Facts
from groundup.runtime.allocator import forget_pages

_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
"""Names of types, in the order of the format: types later in it lie earlier in the file, so that all are aligned."""

BLOCK_BYTES = 512 << 10
"""Of a tensor that are in memory together while it is converted: as many as caches hold."""


def save_tensors(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None) -> Facts:
    """Write tensors as safetensors, from any device, and make the file durable.

    Args:
        path: The file.
        tensors: By name.
        metadata: What else the header says of the file.

    Returns:
        Its size and SHA-256, for the manifest.

    Raises:
        TypeError: The format has no name for the type of a tensor.
    """
    order = list(_DTYPES)
    if odd := [f"{name} ({t.dtype})" for name, t in tensors.items() if t.dtype not in _DTYPES]:
        raise TypeError(f"cannot store {', '.join(odd)}")
    names = sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name))
    header: dict[str, dict[str, Any]] = {} if metadata is None else {"__metadata__": metadata}
    parts, end = [], 0
    for name in names:
        tensor = tensors[name].detach().contiguous().cpu()
        data = tensor.view(-1).view(torch.uint8).numpy().data
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end := end + data.nbytes],
        }
        parts.append(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return write_hashed(path, [memoryview(len(text).to_bytes(8, "little") + text), *parts])


def each_tensor(path: Path) -> Iterator[tuple[str, Iterator[Tensor]]]:
    """The tensors of a safetensors file one by one, each in blocks of rows that are read when they are asked for.

    A block is for use before the next one is asked for: then it is in memory no more.

    Raises:
        UserError: Missing, or not safetensors.
    """
    for name, tensor in load_tensors(path).items():
        yield name, _blocks(tensor)


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    for block in torch.split(tensor, max(1, BLOCK_BYTES * len(tensor) // max(1, tensor.nbytes))):
        yield block
        forget_pages(block.data_ptr(), block.nbytes)


def _taken(tensor: Tensor) -> Tensor:
    copy, n_rows = torch.empty_like(tensor), 0
    for block in _blocks(tensor):
        copy[n_rows : (n_rows := n_rows + len(block))] = block
    return copy


def load_tensors(path: Path, *, mapped: bool = True) -> dict[str, Tensor]:
    """Map a safetensors file into CPU memory: what is used of it is read then.

    Args:
        path: The file.
        mapped: Else all is read now, no more than a block of it twice: whoever overwrites the file changes nothing.

    Raises:
        UserError: Missing, or not safetensors.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        refuse_pointer(path)
        raise UserError(f"cannot read {path}: {error}") from error
    return tensors if mapped else {name: _taken(tensor) for name, tensor in tensors.items()}
