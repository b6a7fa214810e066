"""The kernels of the C++ files here for decoding, and with them those of training."""

import ctypes
import functools
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor

from groundup.config.generate import SamplingConfig
from groundup.kernels.block import TYPES
from groundup.kernels.library import DECODING, TRAINING, declare, shared_library
from groundup.kernels.training import TrainingKernels, trusted
from groundup.kernels.trust import wrong_in_decoding, wrong_in_training
from groundup.runtime.allocator import HUGE_PAGE, ask_for_huge_pages, forget_pages
from groundup.runtime.stored import PlainKernels, Stored

PACKED_AT_ONCE = 4 << 20
ROOMS, LINE = 16 << 20, 64


class Rounded(NamedTuple):
    """A matrix (D, C) in 8 bits: row d stands for `weight[d] * scale[d]`, up to an error."""

    weight: Int8[Tensor, "D C"]
    scale: Float[Tensor, " D"]
    length: float
    """The largest length of a row's error, in units of its scale; infinite where the matrix holds what is no number."""


class CompiledKernels(TrainingKernels):
    """Products by the compiled kernels, too: what decoding has.

    Args:
        training: The shared library of training.
        decoding: That of decoding.

    Raises:
        OSError: One of them is none.
    """

    def __init__(self, training: Path, decoding: Path) -> None:
        super().__init__(training)
        library = self._open(decoding, "lanes")
        self._rooms = _Rooms()
        pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self._linear = declare(library.linear, number, *5 * [pointer], *3 * [size])
        self._sum = declare(library.sum, pointer, size, gives=ctypes.c_int32)
        self._lanes = library.lanes()
        self._pack = declare(library.pack, pointer, size, size, pointer)
        self._unpack = declare(library.unpack, *3 * [pointer], *3 * [size], pointer, gives=number)
        self.blocks = declare(library.blocks, pointer, size, *3 * [pointer], size, size)
        """As the next, of block.cpp: `CompiledBlocks` calls them."""
        self.attend_layer = declare(library.attend_layer, pointer, size, *2 * [pointer], size, size, pointer)
        self._draw = declare(
            library.draw, pointer, *2 * [size], ctypes.c_float, size, *2 * [ctypes.c_double], *2 * [pointer]
        )
        self._round_rows = declare(
            library.round_rows, number, pointer, *2 * [size], *2 * [pointer], gives=ctypes.c_float
        )
        self._largest = declare(
            library.largest_logits, number, *4 * [pointer], ctypes.c_float, pointer, *4 * [size], gives=size
        )

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
        """Weights of 8 bits are packed."""
        if stored.n_inputs is not None or stored.weight.is_meta or stored.weight.dtype != torch.int8:
            return stored
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

    def sum(self, x: Int[Tensor, " N"]) -> int:
        """The sum of 32-bit integers, modulo 2^32: every byte read once, by all cores."""
        return self._sum(x.data_ptr(), x.numel())


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
        with self._lock, torch.inference_mode(mode=False):  # who takes the next place may not be in it
            if size > len(self._left):
                block = torch.empty(max(size, ROOMS) + HUGE_PAGE, dtype=torch.int8)
                ask_for_huge_pages(block.data_ptr(), block.nbytes)
                self._left = block[-block.data_ptr() % HUGE_PAGE :]
            room, self._left = self._left[:size], self._left[-(-size // LINE) * LINE :]
            return room.view(shape)


@functools.cache
def load_kernels(say: Callable[[str], None]) -> PlainKernels:
    """The compiled kernels of training and decoding, or PyTorch's operations where they cannot be had; once a process.

    Args:
        say: Told in one line that they are being compiled, and why they are not used.
    """

    def wrong(kernels: CompiledKernels) -> list[str]:
        return wrong_in_training(kernels) + wrong_in_decoding(kernels)

    return trusted(lambda: CompiledKernels(shared_library(TRAINING, say), shared_library(DECODING, say)), wrong, say)
