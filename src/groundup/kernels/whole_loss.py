"""The loss of a GPT-2 with few tokens in its vocabulary as one step of autograd and one call, by whole_loss.cpp.

Of a small model's step PyTorch takes a tenth: it notes and visits every operation and every parameter, in code that the
kernels between have driven out of the caches. Here the call that computes the loss computes what parameters get, too.
The way back multiplies that with what the loss gets, and leaves it in the parameters, as autograd does when it comes to
one: no other process may share these gradients, and nobody may wait for them.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from groundup.kernels.attention import in_type
from groundup.kernels.dropout import count
from groundup.kernels.library import declare
from groundup.kernels.one_call import NO_MEMORY, OneCallBlocks, SomeBlocks, addresses

ENDS = 4
"""Tensors that are no block's: vectors of tokens and of positions, gain and shift (or None) of the last norm."""
_NO_ID, _NO_ROOM = -1, -3
"""What the library says of ids that are none; of such targets it says -2, and -3 where memory does not suffice."""


class _Ends(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("V", "P")),
        *((name, ctypes.c_void_p) for name in ("tokens", "places", "gain", "shift")),
        ("eps", ctypes.c_float),
    )


class WholeLoss:
    """Computes the loss of a GPT-2.

    Args:
        library: The shared library of the kernels.
        blocks: Compute its blocks.
    """

    def __init__(self, library: ctypes.CDLL, blocks: OneCallBlocks) -> None:
        self._lanes, self._room = library.lanes_in_training(), blocks.room
        call = in_type(library, "gpt_loss", blocks.dtype)
        self._call = declare(call, ctypes.c_int64, *9 * [ctypes.c_void_p], gives=ctypes.c_double)

    def __call__(
        self,
        idx: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        n_head: int,
        eps: float,
        dropout: float,
        tensors: Sequence[Any],
    ) -> Float[Tensor, ""]:
        """The summed loss; its way back adds to `.grad` of all tensors, which are leaves that nobody has hooked.

        Args:
            idx: Ids, contiguous.
            targets: Ids, or IGNORE, contiguous.
            n_head: Heads, whose width is a multiple of the kernels' lanes.
            eps: Of all norms.
            dropout: Of what the stream begins with, of attention's weights and of what is added to the stream.
            tensors: ENDS, and twelve of each block.

        Raises:
            IndexError: An id or a target is not in the vocabulary.
            MemoryError: There is too little.
        """
        (n_tokens, width), n_places = tensors[0].shape, len(tensors[1])
        dropped = (ctypes.c_uint32 * 3)(*count(dropout))  # drawn before the blocks', as on the page
        blocks = SomeBlocks((*idx.shape, width, n_head), eps, dropout, tensors[ENDS:])
        ends = _Ends(n_tokens, n_places, *addresses(tensors[:ENDS]), eps)
        n_whole = -(-n_tokens // self._lanes) * self._lanes
        lengths = [*blocks.lengths * blocks.n, n_places * width, width, width, n_whole * width]
        gradients, size = torch.empty(sum(lengths)), self._room(blocks.sizes)
        streams = torch.empty(blocks.n + 1, *idx.shape, width)
        rooms = [torch.empty(size, dtype=torch.uint8) for _ in range(blocks.n)]  # apart, they fit into what is free
        loss = self._call(
            *(blocks.n, ctypes.byref(ends), blocks.sizes, blocks.weights, dropped, idx.data_ptr(), targets.data_ptr()),
            *(addresses(streams.unbind()), addresses(rooms), gradients.data_ptr()),
        )
        if loss == _NO_ROOM:
            raise MemoryError(NO_MEMORY)
        if loss < 0:
            raise IndexError(f"{'ids' if loss == _NO_ID else 'targets'} are 0 to {n_tokens - 1}")
        return _Loss.apply(tensors[0], loss, (gradients, lengths, blocks, tensors))  # type: ignore[no-untyped-call]


class _Loss(torch.autograd.Function):
    """Of all tensors autograd sees the first alone."""

    @staticmethod
    def forward(ctx: Any, _: Tensor, loss: float, known: tuple[Any, ...]) -> Tensor:
        ctx.known = known
        return torch.full((), loss, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if ctx.known is None:
            raise RuntimeError("what a loss in one step keeps is used up by its way back: it goes back once")
        (gradients, lengths, blocks, (tokens, *others)), ctx.known = ctx.known, None
        if any(p is not None and (p._backward_hooks or p._post_accumulate_grad_hooks) for p in (tokens, *others)):
            raise RuntimeError("a loss in one step tells no hook that came after it: hook parameters before")
        *of_blocks, of_places, of_gain, of_shift, of_tokens = gradients.mul_(grad).split_with_sizes(lengths)
        of_others = of_places.view_as(others[0]), of_gain, of_shift, *blocks.in_order(of_blocks)
        for tensor, gradient in zip(others, of_others, strict=True):
            if tensor is None:
                continue
            if tensor.grad is None:
                tensor.grad = gradient
            else:
                tensor.grad += gradient
        return of_tokens.view(-1, tokens.shape[1])[: len(tokens)], None, None
