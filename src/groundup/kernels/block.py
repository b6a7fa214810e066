"""The blocks of GPT-2 in one call of block.cpp: their tensors by their addresses."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Num
from torch import Tensor

from groundup.kernels.library import numbers
from groundup.runtime.stored import BYTES_OF_SCALE, Stored

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
"""As `linear` of products.cpp counts types of weights, and `Cache` of block.cpp those of keys and values."""


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
        *((name, ctypes.c_int64) for name in ("N", "K")),
        ("type", ctypes.c_int32),
    )


class _Norm(ctypes.Structure):
    _fields_ = (("gain", ctypes.c_void_p), ("shift", ctypes.c_void_p), ("eps", ctypes.c_float))


class _Block(ctypes.Structure):
    _fields_ = (
        *((name, _Norm) for name in ("ln_1", "ln_2")),
        *((name, _Matrix) for name in ("c_attn", "attn_proj", "c_fc", "mlp_proj")),
    )


class _Cache(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
        *((name, ctypes.c_int64) for name in ("layer", "row", "room", "H", "D")),
        ("type", ctypes.c_int32),
    )


class Norm(NamedTuple):
    """A LayerNorm."""

    gain: Float[Tensor, " C"]
    shift: Float[Tensor, " C"] | None
    eps: float


class Linear(NamedTuple):
    """A linear layer."""

    stored: Stored
    bias: Float[Tensor, " D"] | None


class BlockTensors(NamedTuple):
    """What a block is made of."""

    norms: Sequence[Norm]
    """ln_1 and ln_2."""
    linears: Sequence[Linear]
    """c_attn, c_proj of attention, c_fc, c_proj of the MLP."""


class CompiledBlocks:
    """All blocks of a model, ready to be called. Their tensors stay alive and where they are.

    Args:
        call: `blocks` of block.cpp.
        attend: `attend_layer` of block.cpp.
        blocks: In the order of their layers.
    """

    def __init__(self, call: Callable[..., None], attend: Callable[..., None], blocks: Sequence[BlockTensors]) -> None:
        self._call, self._attend, self._tensors = call, attend, blocks
        structures: Any = _Block * len(blocks)
        self._blocks = structures(*(_Block(*map(_norm, block.norms), *map(_matrix, block.linears)) for block in blocks))

    def __call__(
        self,
        x: Float[Tensor, "B T C"],
        keys: Num[Tensor, "L B H S D"],
        values: Num[Tensor, "L B H S D"],
        held: Sequence[int],
    ) -> None:
        """Send new tokens through the blocks.

        Args:
            x: The residual stream, contiguous, changed in place.
            keys: Get those of the new tokens; float32, float16, or int8 with scales (`keep_rows`).
            values: As the keys, and laid out like them.
            held: Tokens before the new ones, of each text.
        """
        cache, (n_texts, n_new, _) = _cache(keys, values), x.shape
        address = ctypes.byref(cache)
        self._call(self._blocks, len(self._blocks), address, x.data_ptr(), numbers(held), n_texts, n_new)

    def attend(
        self,
        layer: int,
        qkv: Float[Tensor, "B T 3*C"],
        keys: Num[Tensor, "L B H S D"],
        values: Num[Tensor, "L B H S D"],
        held: Sequence[int],
    ) -> Float[Tensor, "B T C"]:
        """The attention of one layer, before its last product; the arguments are as above.

        Args:
            layer: Which.
            qkv: Queries, keys and values of the new tokens, contiguous.
            keys: Get those of the new tokens.
            values: As the keys.
            held: Tokens before the new ones, of each text.
        """
        cache, (n_texts, n_new, width) = _cache(keys, values), qkv.shape
        y = qkv.new_empty(n_texts, n_new, width // 3)
        self._attend(ctypes.byref(cache), layer, qkv.data_ptr(), numbers(held), n_texts, n_new, y.data_ptr())
        return y


def _cache(keys: Tensor, values: Tensor) -> _Cache:
    (_, _, n_head, _, width), (layer, row, head, _, _) = keys.shape, keys.stride()
    n_numbers = width - (BYTES_OF_SCALE if keys.dtype == torch.int8 else 0)
    return _Cache(keys.data_ptr(), values.data_ptr(), layer, row, head // width, n_head, n_numbers, TYPES[keys.dtype])


def _norm(norm: Norm) -> _Norm:
    return _Norm(norm.gain.data_ptr(), None if norm.shift is None else norm.shift.data_ptr(), norm.eps)


def _matrix(linear: Linear) -> _Matrix:
    weight, scale = linear.stored.weight, linear.stored.scale
    n_outputs, n_inputs = linear.stored.shape
    return _Matrix(
        weight.data_ptr(),
        None if scale is None else scale.data_ptr(),
        None if linear.bias is None else linear.bias.data_ptr(),
        n_outputs,
        n_inputs,
        TYPES[weight.dtype],
    )
