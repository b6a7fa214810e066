"""Blocks of GPT-2 in two calls of gpt_block.cpp, one each way: in float32, and in bfloat16 where a processor has it.

As single operations every product, norm and GELU reads and writes all activations, and cores wait for each other behind
each of them. Here some rows go through all that treats them alone, and cores wait around attention only. In bfloat16
weights are rounded as they are read, and their gradients are not rounded at all.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.kernels.attention import in_type
from groundup.kernels.dropout import count
from groundup.kernels.library import declare

TENSORS = 12
"""Of a block: weight and bias, or None, of ln_1, c_attn, c_proj of attention, ln_2, c_fc and c_proj of the MLP."""
_MATRICES = 2, 4, 8, 10
"""Their places there."""
_PLACES = [(0, 1, 6, 7, 5, 11, 3, 9, *_MATRICES).index(place) for place in range(TENSORS)]
"""Where the library writes what each of them gets: vectors, then matrices."""


class _Sizes(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("B", "T", "C", "H")),
        ("dropped", ctypes.c_uint32 * 9),
        ("eps", ctypes.c_float),
        ("cosines", ctypes.c_void_p),
        ("sines", ctypes.c_void_p),
    )


NO_MEMORY = "the kernels find no memory for what a step has in its hands"


class OneCallBlocks:
    """Computes blocks of a library that has them.

    Args:
        library: The shared library of the kernels.
        dtype: Of what products read and give; the stream and norms have float32.
    """

    def __init__(self, library: ctypes.CDLL, dtype: torch.dtype) -> None:
        self.dtype = dtype
        size, pointer = ctypes.c_int64, ctypes.c_void_p
        there, back = (in_type(library, name, dtype) for name in ("gpt_blocks_forward", "gpt_block_backward"))
        self.forward = declare(there, size, *4 * [pointer], gives=ctypes.c_bool)
        self.backward = declare(back, *7 * [pointer], ctypes.c_int, gives=ctypes.c_bool)
        there.errcheck = back.errcheck = _refuse_the_end
        self.room = declare(in_type(library, "gpt_block_room", dtype), pointer, gives=size)

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
        blocks = SomeBlocks(len(tensors) // TENSORS, (*x.shape, n_head), eps, dropout, rotation)
        return _Blocks.apply(x, self, blocks, torch.is_grad_enabled(), *tensors)  # type: ignore[no-untyped-call]


class SomeBlocks:
    """Blocks one behind the other, as the library takes them for one way there and back.

    Not where their weights lie: these are elsewhere on the way back, where ranks have but shares of them in between.

    Args:
        n: How many.
        shape: B, T, C and H.
        eps: See `OneCallBlocks`, as for the next ones.
        dropout: See `draw`.
        rotation: Theirs.
    """

    def __init__(
        self, n: int, shape: tuple[int, ...], eps: float, dropout: float, rotation: tuple[Tensor, ...] | None = None
    ) -> None:
        self.n, self._rotation = n, rotation  # the sizes have its addresses
        angles = [part.data_ptr() for part in rotation or ()]
        self.sizes = (_Sizes * n)(*[_Sizes(*shape, (ctypes.c_uint32 * 9)(), eps, *angles) for _ in range(n)])
        self.draw(dropout)
        width = shape[2]
        self._matrices = (3 * width, width), (width, width), (4 * width, width), (width, 4 * width)
        self.lengths = [width] * 6 + [3 * width, 4 * width] + [rows * columns for rows, columns in self._matrices]
        """Numbers of what a block's tensors get, as they follow each other."""

    def draw(self, dropout: float) -> None:
        """Draw the seeds of each block."""
        for sizes in self.sizes:
            sizes.dropped[:] = [number for _ in ("weights", "attention", "MLP") for number in count(dropout)]

    def in_order(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """What the tensors of some blocks get, in their order and shapes; so do biases that are not there."""
        ordered = [parts[start + place] for start in range(0, len(parts), TENSORS) for place in _PLACES]
        for start in range(0, len(parts), TENSORS):
            for place, shape in zip(_MATRICES, self._matrices, strict=True):
                ordered[start + place] = ordered[start + place].view(shape)
        return ordered


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, calls: OneCallBlocks, blocks: SomeBlocks, keep: bool, *tensors: Any) -> Tensor:  # noqa: FBT001  # apply takes no keywords
        ctx.calls, ctx.blocks, n = calls, blocks, blocks.n
        streams = [x, *[torch.empty_like(x) for _ in range(n if keep else min(n, 2))]]
        rooms = [torch.empty(calls.room(blocks.sizes), dtype=torch.uint8) for _ in range(n if keep else 1)]
        if not keep:  # what a block was given is overwritten by the next one
            streams, rooms = [x, *(streams[1:] * n)[:n]], rooms * n
        calls.forward(n, blocks.sizes, addresses(tensors), addresses(streams), addresses(rooms))
        ctx.save_for_backward(x, rooms[0], *tensors)
        # Not by autograd: each is free as soon as its block has gone back.
        ctx.kept = list(zip(streams[1:n], rooms[1:], strict=True))
        return streams[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        first, room, *tensors = ctx.saved_tensors
        blocks, needs, to = ctx.blocks, ctx.needs_input_grad[4:], torch.empty_like(first)
        of_tensors: list[Tensor] = []
        if len(ctx.kept) != blocks.n - 1:
            raise RuntimeError("what blocks in one step keep is used up by their way back: they go back once")
        weights, grad = addresses(tensors), grad.contiguous()
        for n in reversed(range(blocks.n)):
            start, kept = n * TENSORS, ctx.kept.pop() if n else (first, room)
            of_weights = torch.empty(sum(blocks.lengths))
            ctx.calls.backward(
                ctypes.byref(blocks.sizes, n * ctypes.sizeof(_Sizes)),
                ctypes.byref(weights, start * ctypes.sizeof(ctypes.c_void_p)),
                *[part.data_ptr() for part in (*kept, grad, to, of_weights)],
                sum(needs[start + place] << bit for bit, place in enumerate(_MATRICES)),
            )
            of_tensors[:0] = blocks.in_order(of_weights.split_with_sizes(blocks.lengths))
            grad = to
        return grad, None, None, None, *[part if need else None for part, need in zip(of_tensors, needs, strict=True)]


def _refuse_the_end(of_memory: bool, *_: Any) -> None:  # noqa: FBT001  # ctypes asks
    if of_memory:
        raise MemoryError(NO_MEMORY)


def addresses(tensors: Sequence[Tensor | None]) -> Any:
    """Those of some tensors, one behind the other."""
    return (ctypes.c_void_p * len(tensors))(*[None if part is None else part.data_ptr() for part in tensors])
