"""A block of GPT-2 in one call of block.cpp: its tensors by their addresses."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.runtime.stored import Stored, largest_activation

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int8: 3}
"""As kernels.cpp counts the types of weights."""


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weight", "scale", "bias")),
        *((name, ctypes.c_int64) for name in ("N", "K")),
        ("limit", ctypes.c_float),
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
        *((name, ctypes.c_int64) for name in ("row", "room", "H", "D")),
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


class CompiledBlock:
    """One block, ready to be called. Its tensors stay alive and where they are.

    Args:
        call: `block` of block.cpp.
        norms: ln_1 and ln_2.
        linears: c_attn, c_proj of attention, c_fc, c_proj of the MLP.
    """

    def __init__(self, call: Callable[..., None], norms: Sequence[Norm], linears: Sequence[Linear]) -> None:
        self._call, self._tensors = call, (norms, linears)
        self._block = _Block(*(_norm(norm) for norm in norms), *(_matrix(linear) for linear in linears))

    def __call__(
        self,
        x: Float[Tensor, "M C"],
        keys: Float[Tensor, "B H S D"],
        values: Float[Tensor, "B H S D"],
        rows: Sequence[int],
        positions: Sequence[int],
    ) -> None:
        """Send new tokens through the block.

        Args:
            x: The residual stream, contiguous, changed in place.
            keys: Of this layer; gets those of the new tokens.
            values: As the keys, and laid out like them.
            rows: Of the cache, one per token.
            positions: Where each token stands in its row.
        """
        (_, n_head, _, width), (row, head, _, _) = keys.shape, keys.stride()
        cache = _Cache(keys.data_ptr(), values.data_ptr(), row, head // width, n_head, width)
        numbers: Any = ctypes.c_int64 * len(rows)
        self._call(
            ctypes.byref(self._block),
            ctypes.byref(cache),
            x.data_ptr(),
            numbers(*rows),
            numbers(*positions),
            len(rows),
        )


def _norm(norm: Norm) -> _Norm:
    return _Norm(norm.gain.data_ptr(), None if norm.shift is None else norm.shift.data_ptr(), norm.eps)


def _matrix(linear: Linear) -> _Matrix:
    weight, scale = linear.stored.weight, linear.stored.scale
    n_outputs, n_inputs = weight.shape
    return _Matrix(
        weight.data_ptr(),
        None if scale is None else scale.data_ptr(),
        None if linear.bias is None else linear.bias.data_ptr(),
        n_outputs,
        n_inputs,
        0.0 if scale is None else largest_activation(n_inputs),
        TYPES[weight.dtype],
    )
