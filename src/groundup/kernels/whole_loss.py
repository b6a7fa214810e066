"""The loss of a GPT-2 with few tokens in its vocabulary as one step of autograd and one call, by whole_loss.cpp.

Of a small model's step PyTorch takes a tenth: it notes and visits every operation and every parameter, in code that the
kernels between have driven out of the caches. Here the call that computes the loss computes what parameters get, too.
The way back leaves that in them, times what the loss gets: no other process may share it, and nobody may wait for it.
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
from groundup.kernels.one_call import NO_MEMORY, TENSORS, OneCallBlocks, SomeBlocks, addresses

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
        call, pointer = in_type(library, "gpt_loss", blocks.dtype), [ctypes.c_void_p]
        takes = ctypes.c_int64, *6 * pointer, ctypes.c_float, *3 * pointer
        self._call = declare(call, *takes, gives=ctypes.c_double)
        self._last: _Prepared | None = None

    def __call__(
        self,
        idx: Int[Tensor, "B T"],
        targets: Int[Tensor, "B T"],
        n_head: int,
        eps: float,
        dropout: float,
        tensors: Sequence[Any],
        tokens: int,
    ) -> Float[Tensor, ""]:
        """The summed loss by `tokens`; its way back adds to `.grad` of all tensors, leaves that nobody has hooked.

        Args:
            idx: Ids, contiguous.
            targets: Ids, or IGNORE, contiguous.
            n_head: Heads, whose width is a multiple of the kernels' lanes.
            eps: Of all norms.
            dropout: Of what the stream begins with, of attention's weights and of what is added to the stream.
            tensors: ENDS, and twelve of each block.
            tokens: What the sum is divided by.

        Raises:
            IndexError: An id or a target is not in the vocabulary.
            MemoryError: It ends.
        """
        places = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        key = idx.shape, n_head, eps, bool(dropout), tensors[0].shape, len(tensors[1]), places
        known = self._last
        if known is None or known.key != key:
            self._last = known = _Prepared(key, tensors, self._lanes)
        n = known.blocks.n
        dropped = (ctypes.c_uint32 * 3)(*count(dropout))  # drawn before the blocks', as on the page
        if dropout:
            known.blocks.draw(dropout)
        gradients, size = torch.empty(known.numbers), self._room(known.blocks.sizes)
        streams = torch.empty(n + 1, *idx.shape, tensors[0].shape[1])
        rooms = [torch.empty(size, dtype=torch.uint8) for _ in range(n)]  # apart, they fit into what is free
        loss = self._call(
            *(n, ctypes.byref(known.ends), known.blocks.sizes, known.weights, dropped),
            *(idx.data_ptr(), targets.data_ptr(), 1 / tokens),
            *(addresses(streams.unbind()), addresses(rooms), gradients.data_ptr()),
        )
        if loss == _NO_ROOM:
            raise MemoryError(NO_MEMORY)
        if loss < 0:
            raise IndexError(f"{'ids' if loss == _NO_ID else 'targets'} are 0 to {len(tensors[0]) - 1}")
        return _Loss.apply(tensors[0], loss / tokens, (gradients, known.places, tensors))  # type: ignore[no-untyped-call]


class _Prepared:
    """What all steps have in common while their sizes, and where the tensors lie, are those of a key."""

    def __init__(self, key: tuple[Any, ...], tensors: Sequence[Any], lanes: int) -> None:
        self.key, (shape, n_head, eps, _, (n_tokens, width), n_places, _) = key, key
        self.blocks = SomeBlocks((len(tensors) - ENDS) // TENSORS, (*shape, width, n_head), eps, 0.0)
        self.weights = addresses(tensors[ENDS:])
        self.ends = _Ends(n_tokens, n_places, *addresses(tensors[:ENDS]), eps)
        of_tokens = -(-n_tokens // lanes) * lanes * width
        lengths = [*self.blocks.lengths * self.blocks.n, n_places * width, width, width, of_tokens]
        self.numbers = sum(lengths)
        *blocks, places, gain, shift, tokens = torch.empty(self.numbers, device="meta").split_with_sizes(lengths)
        parts = tokens.view(-1, width)[:n_tokens], places.view(-1, width), gain, shift, *self.blocks.in_order(blocks)
        self.places = [(part.shape, part.stride(), part.storage_offset()) for part in parts]
        """Of what each tensor gets."""


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
        (gradients, (of_first, *places), (first, *others)), ctx.known = ctx.known, None
        if any(p is not None and (p._backward_hooks or p._post_accumulate_grad_hooks) for p in (first, *others)):
            raise RuntimeError("a loss in one step tells no hook that came after it: hook parameters before")
        if grad.item() != 1:
            gradients *= grad
        for tensor, place in zip(others, places, strict=True):
            if tensor is not None:
                part = gradients.as_strided(*place)
                tensor.grad = part if tensor.grad is None else tensor.grad.add_(part)
        return gradients.as_strided(*of_first), None, None
