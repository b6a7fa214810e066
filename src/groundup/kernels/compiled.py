"""The kernels of the C++ files here, called through ctypes, and trusted only after a test."""

import ctypes
import functools
import math
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig
from groundup.kernels.adamw import AdamWSteps
from groundup.kernels.block import TYPES
from groundup.kernels.dropout import Counted
from groundup.kernels.head import HeadKernels
from groundup.kernels.library import declare, shared_library, why_not
from groundup.kernels.muon import MuonSteps
from groundup.kernels.one_call import OneCallBlocks
from groundup.kernels.trust import wrong_parts
from groundup.kernels.whole_loss import WholeLoss
from groundup.planner.memory import KERNEL_LANES
from groundup.runtime.allocator import HUGE_PAGE, ask_for_huge_pages, forget_pages
from groundup.runtime.remember import remembered
from groundup.runtime.stored import PlainKernels, Stored

TRUSTED = "trusted.json"
"""Holds what is wrong, and that is nothing: kernels that are right are tested once, as the test takes 20 MB."""
PACKED_AT_ONCE = 4 << 20
ROOMS, LINE = 16 << 20, 64


class Rounded(NamedTuple):
    """A matrix (D, C) in 8 bits: row d stands for `weight[d] * scale[d]`, up to an error."""

    weight: Int8[Tensor, "D C"]
    scale: Float[Tensor, " D"]
    length: float
    """The largest length of a row's error, in units of its scale; infinite where the matrix holds what is no number."""


class CompiledKernels(PlainKernels):
    """Products by the compiled kernels.

    Args:
        path: The shared library.

    Raises:
        OSError: It is none.
    """

    lanes = KERNEL_LANES

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self.name, _, _ = path.name.partition(".")  # has the hash of their source: choices are for these and no others
        self._rooms = _Rooms()
        pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self._linear = declare(library.linear, number, *5 * [pointer], *3 * [size])
        self._sum = declare(library.sum, pointer, size, gives=ctypes.c_int32)
        self.one_call = {torch.float32: OneCallBlocks(library, torch.float32)}
        """Blocks of GPT-2 in training, by the type of their products; in bfloat16 where the processor multiplies it."""
        self.has_bf16 = bool(library.has_bf16())
        if self.has_bf16:
            self.one_call[torch.bfloat16] = OneCallBlocks(library, torch.bfloat16)
        self.whole_loss = {dtype: WholeLoss(library, calls) for dtype, calls in self.one_call.items()}
        self.muon, self.adamw = MuonSteps(library, self.lanes), AdamWSteps(library)
        self.head = HeadKernels(library)
        self._lanes = library.lanes()
        self._pack = declare(library.pack, pointer, size, size, pointer)
        self._unpack = declare(library.unpack, *3 * [pointer], *3 * [size], pointer, gives=number)
        self.blocks = declare(library.blocks, pointer, size, *3 * [pointer], size, size)
        """As the next, of block.cpp: `CompiledBlocks` calls them."""
        self.attend_layer = declare(library.attend_layer, pointer, size, *2 * [pointer], size, size, pointer)
        self.attention_forward = declare(library.attention_forward, *6 * [pointer])
        """As the next, of attention.cpp: `CausalAttention` calls them."""
        self.attention_backward = declare(library.attention_backward, *10 * [pointer])
        self._gelu = declare(library.gelu_forward, number, *2 * [pointer], size)
        self._gelu_backward = declare(library.gelu_backward, number, *3 * [pointer], size)
        self._relu_squared = declare(library.relu_squared_forward, number, *2 * [pointer], size)
        self._relu_squared_backward = declare(library.relu_squared_backward, number, *3 * [pointer], size)
        self._dropout = declare(library.dropout, number, *2 * [pointer], *2 * [size], *3 * [ctypes.c_uint32])
        self._weight_gradient = declare(library.weight_gradient, *3 * [pointer], *3 * [size])
        self._draw = declare(
            library.draw, pointer, *2 * [size], ctypes.c_float, size, *2 * [ctypes.c_double], *2 * [pointer]
        )
        self._round_rows = declare(
            library.round_rows, number, pointer, *2 * [size], *2 * [pointer], gives=ctypes.c_float
        )
        self._largest = declare(
            library.largest_logits, number, *4 * [pointer], ctypes.c_float, pointer, *4 * [size], gives=size
        )
        self._rotate = declare(library.rotate, number, *5 * [pointer], ctypes.c_float, *6 * [size], ctypes.c_float)
        self._rotate_backward = declare(library.rotate_backward, number, *6 * [pointer], *6 * [size])

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """The library is there once, however often a model with it is copied."""
        return self

    def linear(
        self, x: Float[Tensor, "B C"], stored: Stored, bias: Float[Tensor, " D"] | None = None
    ) -> Float[Tensor, "B D"]:
        """X @ weight.T + bias. A row of x gives the same bits in every batch."""
        stored = self.arranged(stored)
        weight, scale = stored.weight, stored.scale
        n_rows, (n_outputs, n_inputs) = len(x), stored.shape
        y = x.new_empty(n_rows, n_outputs)
        self._linear(
            TYPES[weight.dtype],
            x.data_ptr(),
            weight.data_ptr(),
            None if scale is None else scale.data_ptr(),
            None if bias is None else bias.data_ptr(),
            y.data_ptr(),
            n_rows,
            n_outputs,
            n_inputs,
        )
        return y

    def arranged(self, stored: Stored, *, spend: bool = False) -> Stored:
        """Weights of 8 bits are packed; others, where they may be used up, are taken out of their file."""
        if stored.n_inputs is not None or stored.weight.is_meta:
            return stored
        if stored.weight.dtype != torch.int8:
            return Stored(_taken(stored.weight)) if spend else stored
        rows, (n_outputs, n_inputs) = stored.weight.contiguous(), stored.shape
        packed = self._rooms.take((-(-n_outputs // self._lanes), -(-n_inputs // 4), 4 * self._lanes))
        packed[-1] = 0  # behind the last output
        if n_inputs % 4:
            packed[:, -1] = 0
        for groups in torch.split(packed, max(1, PACKED_AT_ONCE // packed[0].nbytes)):
            some, rows = rows[: len(groups) * self._lanes], rows[len(groups) * self._lanes :]
            self._pack(some.data_ptr(), *some.shape, groups.data_ptr())
            if spend:
                forget_pages(some.data_ptr(), some.nbytes)
        return Stored(packed, stored.scale, n_inputs)

    def rows(self, stored: Stored, idx: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape C"]:
        """Some rows of a matrix, in float32.

        Raises:
            IndexError: There is no such row.
        """
        if stored.n_inputs is None or stored.scale is None:
            return super().rows(stored, idx)
        idx, sizes = idx.contiguous(), stored.shape
        out = torch.empty(*idx.shape, sizes[1])
        addresses = (part.data_ptr() for part in (stored.weight, stored.scale, idx))
        if not self._unpack(*addresses, idx.numel(), *sizes, out.data_ptr()):
            raise IndexError(f"rows are 0 to {sizes[0] - 1}")
        return out

    def weight_gradient(self, grad: Float[Tensor, "B D"], x: Float[Tensor, "B C"]) -> Float[Tensor, "D C"]:
        """Grad.T @ x, of tensors that lie in one piece, in float32."""
        out = x.new_empty(grad.shape[1], x.shape[1])
        self._weight_gradient(*(part.data_ptr() for part in (grad, x, out)), len(x), *out.shape)
        return out

    def gelu(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """GELU of every element, tanh form; float32 or bfloat16."""
        x = x.contiguous()
        y = torch.empty_like(x)
        self._gelu(TYPES[x.dtype], x.data_ptr(), y.data_ptr(), x.numel())
        return y

    def gelu_backward(self, x: Float[Tensor, "*shape"], grad: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The gradient of x, given that of `gelu(x)`."""
        x, grad = x.contiguous(), grad.contiguous()
        grad_x = torch.empty_like(x)
        self._gelu_backward(TYPES[x.dtype], x.data_ptr(), grad.data_ptr(), grad_x.data_ptr(), x.numel())
        return grad_x

    def relu_squared(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """max(0, x)^2 of every element; float32 or bfloat16."""
        x = x.contiguous()
        y = torch.empty_like(x)
        self._relu_squared(TYPES[x.dtype], x.data_ptr(), y.data_ptr(), x.numel())
        return y

    def relu_squared_backward(
        self, y: Float[Tensor, "*shape"], grad: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """The gradient of x, given that of y = `relu_squared(x)`."""
        grad = grad.contiguous()
        grad_x = torch.empty_like(grad)
        self._relu_squared_backward(TYPES[y.dtype], y.data_ptr(), grad.data_ptr(), grad_x.data_ptr(), y.numel())
        return grad_x

    def dropout(self, x: Float[Tensor, "*B C"], counted: Counted) -> Float[Tensor, "*B C"]:
        """Every number is 0 or grows, as two seeds and a bound tell by its place; float32 or bfloat16."""
        x = x.contiguous()
        y = torch.empty_like(x)
        self._dropout(TYPES[x.dtype], x.data_ptr(), y.data_ptr(), x.numel() // x.shape[-1], x.shape[-1], *counted)
        return y

    def rotate(
        self,
        x: Float[Tensor, "B T H D"],
        cos: Float[Tensor, "*N D"],
        sin: Float[Tensor, "*N D"],
        *,
        back: bool = False,
        in_place: bool = False,
    ) -> Float[Tensor, "B T H D"]:
        """Each pair of coordinates (i, i + D/2) turned by its angle, N tokens' own; float32 or bfloat16."""
        parts, sizes = _heads(x, cos, sin, in_place=in_place)
        self._rotate(TYPES[x.dtype], *(part.data_ptr() for part in parts), None, 0.0, *sizes, -1.0 if back else 1.0)
        return parts[-1]

    def normed_rotate(
        self, x: Float[Tensor, "B T H D"], cos: Float[Tensor, "*N D"], sin: Float[Tensor, "*N D"], eps: float
    ) -> tuple[Float[Tensor, "B T H D"], Float[Tensor, "B T H"]]:
        """As `rotate`, of heads that get the mean square 1 before; and what they were multiplied by for that."""
        parts, sizes = _heads(x, cos, sin)
        scales = torch.empty(x.shape[:-1])
        self._rotate(TYPES[x.dtype], *(part.data_ptr() for part in (*parts, scales)), eps, *sizes, 1.0)
        return parts[-1], scales

    def normed_rotate_backward(
        self,
        grad: Float[Tensor, "B T H D"],
        cos: Float[Tensor, "*N D"],
        sin: Float[Tensor, "*N D"],
        y: Float[Tensor, "B T H D"],
        scales: Float[Tensor, "B T H"],
    ) -> Float[Tensor, "B T H D"]:
        """The gradient of x, given that of y; y and scales are what `normed_rotate` gave."""
        parts, sizes = _heads(grad.to(y.dtype), cos, sin)
        self._rotate_backward(TYPES[y.dtype], *(part.data_ptr() for part in (*parts, y, scales)), *sizes)
        return parts[-1]

    def draw(
        self, logits: Float[Tensor, "B V"], config: SamplingConfig, uniform: Float[Tensor, "B 1"] | None
    ) -> Int[Tensor, " B"]:
        """As `choose` of generation/sampling.py; in float32."""
        logits, ids = logits.float().contiguous(), torch.empty(len(logits), dtype=torch.long)
        numbers, filters = None if uniform is None else uniform.data_ptr(), (config.top_k, config.top_p, config.min_p)
        self._draw(logits.data_ptr(), *logits.shape, config.temperature, *filters, numbers, ids.data_ptr())
        return ids

    def rounded(self, weight: Float[Tensor, "D C"]) -> Rounded:
        """A matrix of floats in 8 bits, row by row, for `largest`."""
        weights, scale = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
        addresses = weights.data_ptr(), scale.data_ptr()
        length = self._round_rows(TYPES[weight.dtype], weight.data_ptr(), *weight.shape, *addresses)
        return Rounded(weights, scale, length)

    def largest(
        self, x: Float[Tensor, "B C"], weight: Float[Tensor, "D C"], rounded: Rounded, k: int
    ) -> Float[Tensor, "B D"] | None:
        """The k largest numbers in each row of x @ weight.T, to the bit, and some beside them; the others are -inf.

        Args:
            x: Some rows, contiguous, float32.
            weight: As it is stored.
            rounded: What `rounded` gave for it: read in its place, but for what may be among the largest.
            k: At least 1 and at most D.

        Returns:
            None where it cannot be told: of more than 32 rows, of rows that are not finite or all but 0, or where too
            much of the weights would have to be read.
        """
        y = x.new_empty(len(x), len(weight))
        addresses = (part.data_ptr() for part in (x, weight, rounded.weight, rounded.scale))
        sizes = (len(x), *weight.shape)
        n_found = self._largest(TYPES[weight.dtype], *addresses, rounded.length, y.data_ptr(), *sizes, k)
        return None if n_found < 0 else y

    def length(self, tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
        """The norm of all these tensors together; zeros have 0."""
        return self.adamw.length(tensors) if self.adamw.suit(tensors) else super().length(tensors)

    def sum(self, x: Int[Tensor, " N"]) -> int:
        """The sum of 32-bit integers, modulo 2^32: every byte read once, by all cores."""
        return self._sum(x.data_ptr(), x.numel())


def _heads(
    x: Tensor, cos: Tensor, sin: Tensor, *, in_place: bool = False
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], tuple[int, ...]]:
    """What the kernels of rotation take: x, cosines, sines and room for the result, each in order; and their sizes."""
    (batch, tokens, heads, width), stride = x.shape, x.stride(1)
    if x.stride() != (tokens * stride, stride, width, 1):
        assert not in_place, "tokens lie evenly, and heads side by side"
        x, stride = x.contiguous(), heads * width
    y = x if in_place else torch.empty(x.shape, dtype=x.dtype)
    sizes = (batch * tokens, stride, y.stride(1), cos.numel() // width, heads, width // 2)
    return (x, cos.contiguous(), sin.contiguous(), y), sizes


def _taken(weight: Float[Tensor, "D C"]) -> Float[Tensor, "D C"]:
    """A copy in memory of its own: a mapped file is read up to a sixth slower. No more than 4 MB are there twice."""
    copy, n_rows = torch.empty_like(weight), max(1, PACKED_AT_ONCE // weight[0].nbytes)
    for some, rows in zip(torch.split(copy, n_rows), torch.split(weight, n_rows), strict=True):
        some.copy_(rows)
        forget_pages(rows.data_ptr(), rows.nbytes)
    return copy


class _Rooms:
    """Places for matrices, one behind the other in huge pages where the kernel has them.

    Each in pages of its own would leave much of its last page empty. What is not used yet is memory only once it is
    written.
    """

    def __init__(self) -> None:
        self._left = torch.empty(0, dtype=torch.int8)
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...]) -> Int8[Tensor, "*shape"]:
        """An empty tensor that begins where a cache line does."""
        size = math.prod(shape)
        with self._lock:
            if size > len(self._left):
                block = torch.empty(max(size, ROOMS) + HUGE_PAGE, dtype=torch.int8)
                ask_for_huge_pages(block.data_ptr(), block.nbytes)
                self._left = block[-block.data_ptr() % HUGE_PAGE :]
            room, self._left = self._left[:size], self._left[-(-size // LINE) * LINE :]
        return room.view(shape)


@functools.cache
def load_kernels(say: Callable[[str], None]) -> PlainKernels:
    """The compiled kernels, or PyTorch's operations where those cannot be had; once a process.

    Args:
        say: Told in one line that they are being compiled, and why they are not used.
    """
    try:
        kernels = CompiledKernels(shared_library(say))
    except (OSError, UserError, subprocess.SubprocessError) as error:
        say(f"no compiled kernels, CPUs are slower, and with 8 bits per weight slowest: {why_not(error)}")
        return PlainKernels()
    key = f"{kernels.key}, torch {torch.__version__}"
    wrong = remembered(TRUSTED, key, ("",), lambda: ", ".join(wrong_parts(kernels)))
    if wrong:
        say(f"the compiled kernels give wrong numbers here ({wrong}) and are not used; CPUs are slower")
        return PlainKernels()
    return kernels
