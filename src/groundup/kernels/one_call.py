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

_KEPT, _GRADIENTS, _VECTORS = (1, 3, 1, 1, 4, 4), (1, 4, 1, 1, 3), (1, 1, 1, 1, 1, 1, 3, 4)
"""How often parts of `BlockKept` and `BlockGradients`, and gradients of vectors, are as wide as the stream."""
_MATRICES = 2, 4, 8, 10
"""Their places among a block's tensors."""


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
        forward, backward = library.gpt_block_forward, library.gpt_block_backward
        forward.argtypes, forward.restype = [ctypes.c_int, *5 * [ctypes.c_void_p]], None
        backward.argtypes, backward.restype = [ctypes.c_int, *6 * [ctypes.c_void_p], ctypes.c_int], None
        self.forward, self.backward = partial(forward, TYPES[dtype]), partial(backward, TYPES[dtype])

    def __call__(
        self,
        x: Float[Tensor, "B T C"],
        n_head: int,
        eps: float,
        dropout: float,
        tensors: Sequence[Tensor | None],
        rotation: tuple[Float[Tensor, "T 1 D"], Float[Tensor, "T 1 D"]] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """The residual stream after a block.

        Args:
            x: Before it, contiguous, float32.
            n_head: Heads, whose width is a multiple of the kernels' lanes.
            eps: Of both norms.
            dropout: Of attention's weights and of what is added to the stream.
            tensors: Weight and bias, or None, of ln_1, c_attn, c_proj of attention, ln_2, c_fc and c_proj of the MLP.
            rotation: Of queries and keys, contiguous, float32.
        """
        seeds = (number for _ in ("weights", "attention", "MLP") for number in count(dropout))
        angles = [part.data_ptr() for part in rotation or ()]
        sizes = _Sizes(*x.shape, n_head, (ctypes.c_uint32 * 9)(*seeds), eps, *angles)
        return _Block.apply(x, self, sizes, rotation, *tensors)  # type: ignore[no-untyped-call]


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, blocks: OneCallBlocks, sizes: _Sizes, rotation: Any, *tensors: Any) -> Tensor:
        rows = sizes.B * sizes.T
        kept = [torch.empty(rows, n * sizes.C, dtype=blocks.dtype) for n in _KEPT]
        kept += [torch.empty(rows, n) for n in (sizes.C, sizes.H, 2, 2)]  # the stream between, sums, moments
        out = torch.empty_like(x)
        blocks.forward(ctypes.byref(sizes), _addresses(tensors), x.data_ptr(), _addresses(kept), out.data_ptr())
        ctx.blocks, ctx.sizes, ctx.rotation = blocks, sizes, rotation  # whose addresses the sizes have
        ctx.save_for_backward(x, *tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        tensors, kept, needs = saved[:12], saved[12:], ctx.needs_input_grad[4:]
        sizes, grad_out, grad_x = ctx.sizes, grad_out.contiguous(), torch.empty_like(x)
        shapes = [tensors[i].shape for i in _MATRICES]
        matrices, vectors = torch.empty(sum(map(math.prod, shapes))), torch.empty(sum(_VECTORS) * sizes.C)
        grads = [torch.empty(sizes.B * sizes.T, n * sizes.C, dtype=ctx.blocks.dtype) for n in _GRADIENTS]
        grads += [torch.empty_like(x), grad_x, vectors, matrices]
        ctx.blocks.backward(
            ctypes.byref(sizes),
            _addresses(tensors),
            x.data_ptr(),
            _addresses(kept),
            grad_out.data_ptr(),
            _addresses(grads),
            sum(needs[place] << i for i, place in enumerate(_MATRICES)),
        )
        gain_1, shift_1, gain_2, shift_2, b_proj, b_out, b_qkv, b_fc = torch.split(
            vectors, [n * sizes.C for n in _VECTORS]
        )
        parts = zip(torch.split(matrices, [math.prod(shape) for shape in shapes]), shapes, strict=True)
        w_qkv, w_proj, w_fc, w_out = (part.view(shape) for part, shape in parts)
        of_tensors = (gain_1, shift_1, w_qkv, b_qkv, w_proj, b_proj, gain_2, shift_2, w_fc, b_fc, w_out, b_out)
        return grad_x, None, None, None, *(grad if need else None for grad, need in zip(of_tensors, needs, strict=True))


def _addresses(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(None if part is None else part.data_ptr() for part in tensors))
