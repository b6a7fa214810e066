"""A block of GPT-2 in two calls of gpt_block.cpp, one each way: in float32, and in bfloat16 where a processor has it.

As single operations every product, norm and GELU reads and writes all activations, and cores wait for each other behind
each of them. Here some rows go through all that treats them alone, and cores wait around attention only. In bfloat16
weights are rounded as they are read, and their gradients are not rounded at all.
"""

import ctypes
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.kernels.attention import TYPES
from groundup.kernels.dropout import count
from groundup.kernels.library import declare

_TENSORS = 12
"""Of a block: weight and bias, or None, of ln_1, c_attn, c_proj of attention, ln_2, c_fc and c_proj of the MLP."""
_ORDER = (0, 1, 6, 7, 5, 11, 3, 9, 2, 4, 8, 10)
"""Their places there, as the library writes their gradients: vectors, then matrices."""
_VECTORS, _MATRICES = (1, 1, 1, 1, 1, 1, 3, 4), _ORDER[8:]
"""How often the vectors are as long as the stream is wide, and the places of the matrices."""


class _Sizes(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("B", "T", "C", "H")),
        ("dropped", ctypes.c_uint32 * 9),
        ("eps", ctypes.c_float),
        ("cosines", ctypes.c_void_p),
        ("sines", ctypes.c_void_p),
    )


class OneCallBlocks:
    """Computes blocks of a library that has them.

    Args:
        library: The shared library of the kernels.
        dtype: Of what products read and give; the stream and norms have float32.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.dtype = dtype
        number, pointer, of_type = ctypes.c_int, ctypes.c_void_p, TYPES[dtype]
        self.forward = partial(declare(library.gpt_block_forward, number, *5 * [pointer]), of_type)
        self.backward = partial(declare(library.gpt_block_backward, number, *7 * [pointer], number), of_type)
        self.room = partial(declare(library.gpt_block_room, number, pointer, gives=ctypes.c_int64), of_type)

    def __call__(
        self,
        x: Float[Tensor, "B T C"],
        n_head: int,
        eps: float,
        dropout: float,
        tensors: Sequence[Tensor | None],
        rotation: tuple[Float[Tensor, "T 1 D"], Float[Tensor, "T 1 D"]] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """The residual stream after some blocks.

        Args:
            x: Before it, contiguous, float32.
            n_head: Heads, whose width is a multiple of the kernels' lanes.
            eps: Of both norms.
            dropout: Of attention's weights and of what is added to the stream.
            tensors: Those of all blocks, twelve of each.
            rotation: Of queries and keys, contiguous, float32.
        """
        angles = [part.data_ptr() for part in rotation or ()]
        shape, blocks = (*x.shape, n_head), range(len(tensors) // _TENSORS)
        seeds = [[number for _ in ("weights", "attention", "MLP") for number in count(dropout)] for _ in blocks]
        sizes = [_Sizes(*shape, (ctypes.c_uint32 * 9)(*some), eps, *angles) for some in seeds]
        how = sizes, rotation, torch.is_grad_enabled()
        return _Blocks.apply(x, self, how, *tensors)  # type: ignore[no-untyped-call]


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, calls: OneCallBlocks, how: Any, *tensors: Any) -> Tensor:
        ctx.calls, (ctx.sizes, ctx.rotation, keeps) = calls, how  # the rotation, as the sizes have its addresses
        ctx.weights = [_addresses(tensors[n : n + _TENSORS]) for n in range(0, len(tensors), _TENSORS)]
        kept: list[tuple[Tensor, Tensor]] = []
        stream, room = x, None
        for sizes, weights in zip(ctx.sizes, ctx.weights, strict=True):
            if keeps or room is None:
                room = torch.empty(calls.room(ctypes.byref(sizes)), dtype=torch.uint8)
                kept.append((stream, room))
            before, stream = stream, torch.empty_like(x)
            calls.forward(ctypes.byref(sizes), weights, before.data_ptr(), room.data_ptr(), stream.data_ptr())
        ctx.save_for_backward(*kept[0], *tensors)
        ctx.kept = kept[1:]  # not by autograd: each is free as soon as its block has gone back
        return stream

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        first, first_room, *tensors = ctx.saved_tensors
        needs, grad = ctx.needs_input_grad[3:], grad.contiguous()
        of_tensors: list[Tensor | None] = [None] * len(tensors)
        if len(ctx.kept) != len(ctx.sizes) - 1:
            raise RuntimeError("what blocks in one step keep is used up by their way back: they go back once")
        for n in reversed(range(len(ctx.sizes))):
            block, start, (before, room) = ctx.sizes[n], n * _TENSORS, ctx.kept.pop() if n else (first, first_room)
            shapes = [tensors[start + place].shape for place in _MATRICES]
            lengths = [n * block.C for n in _VECTORS] + [math.prod(shape) for shape in shapes]
            of_x, of_weights = torch.empty_like(before), torch.empty(sum(lengths))
            *vectors, w_qkv, w_proj, w_fc, w_out = torch.split(of_weights, lengths)
            matrices = (part.view(shape) for part, shape in zip((w_qkv, w_proj, w_fc, w_out), shapes, strict=True))
            for place, part in zip(_ORDER, (*vectors, *matrices), strict=True):
                of_tensors[start + place] = part if needs[start + place] else None
            needed = sum(needs[start + place] << i for i, place in enumerate(_MATRICES))
            addresses = [part.data_ptr() for part in (before, room, grad, of_x, of_weights)]
            ctx.calls.backward(ctypes.byref(block), ctx.weights[n], *addresses, needed)
            grad = of_x
        return grad, None, None, *of_tensors


def _addresses(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*[None if part is None else part.data_ptr() for part in tensors])
