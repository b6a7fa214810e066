"""Products of a few rows with a large matrix that is stored in 32, 16 or 8 bits: in plain PyTorch.

A token reads every weight once, so decoding is as fast as memory, and half the bits are twice the speed. This is what
kernels/products.cpp computes, in the words of PyTorch: the reference that the compiled kernels are tested against, and
what runs where there is no compiler.

8 bits: every row of weights has a scale, its largest absolute value over 127. Activations are rounded in the same way,
BLOCK of them with a scale: one that is large makes only its neighbors coarse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from groundup.runtime.remember import machine_id

Weights = Literal["fp32", "fp16", "bf16", "int8"]
DTYPES: dict[Weights, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "int8": torch.int8,
}
assert tuple(DTYPES) == get_args(Weights)

BLOCK = 128
"""Inputs of a token that have a scale together, where weights have 8 bits."""
_LARGEST, _TINY = 127, 1e-30
BYTES_OF_SCALE = 4
"""Behind a row of 8-bit numbers that `keep_rows` gives."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A matrix (D, C), and for 8 bits the scale of each row: row d stands for `weight[d] * scale[d]`.

    Kernels may have packed the weights of 8 bits: (groups of L rows, fours of columns, 4 L), see kernels/packed.cpp.
    """

    weight: Tensor
    scale: Float[Tensor, " D"] | None = None
    n_inputs: int | None = None
    """C, where the weights are packed."""

    @property
    def shape(self) -> tuple[int, int]:
        """D and C."""
        n_outputs = len(self.weight) if self.scale is None else len(self.scale)
        return n_outputs, self.n_inputs or self.weight.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes that a token reads."""
        return self.weight.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def unpacked(self) -> Num[Tensor, "D C"]:
        """The weights, row by row; no copy where they lie so."""
        if self.n_inputs is None:
            return self.weight
        fours = self.weight.view(torch.int32).mT.clone(memory_format=torch.contiguous_format)
        return fours.view(torch.int8).flatten(0, 1)[: self.shape[0], : self.n_inputs]

    def widened(self) -> Float[Tensor, "D C"]:
        """The matrix in float32; no copy where it is that already."""
        wide = self.unpacked().float()
        return wide if self.scale is None else wide.mul_(self.scale[:, None])


def store(weight: Float[Tensor, "D C"], weights: Weights) -> Stored:
    """Round a matrix to a type of weights; float32 is taken over, not copied."""
    weight = weight.detach()
    if weights != "int8":
        return Stored(weight.to(DTYPES[weights]))
    if weight.is_meta:  # nothing else: other operations without data load PyTorch's compiler, a second and 80 MB
        empty = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
        return Stored(empty, torch.empty(len(weight), device=weight.device))
    weight = weight.float()
    largest = torch.maximum(weight.amax(1), -weight.amin(1))  # without a copy; PyTorch's norm takes 30 times as long
    scale = largest.clamp(min=_TINY) / _LARGEST
    return Stored((weight / scale[:, None]).round_().to(torch.int8), scale)


def inputs_for(stored: Stored, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
    """Activations as a product takes them: beside weights of 8 bits, BLOCK neighbors are integers and a scale."""
    if stored.scale is None:
        return x
    blocks = F.pad(x, (0, -x.shape[1] % BLOCK)).view(len(x), -1, BLOCK)
    return read_rows(keep_rows(blocks, torch.int8), x.dtype).flatten(1)[:, : x.shape[1]]


def keep_rows(x: Float[Tensor, "*B D"], dtype: torch.dtype) -> Num[Tensor, "*B W"]:
    """Keys or values as a cache keeps them: in 8 bits, the scale of each row stands behind it, as four of its bytes."""
    if dtype != torch.int8:
        return x.to(dtype)
    bound = x.float().abs().amax(-1, keepdim=True).clamp(min=_TINY)
    factor = torch.tensor(float(_LARGEST)) / bound  # a number over a tensor would be rounded twice
    integers = (x * factor).round_().to(torch.int8)
    return torch.cat((integers, (bound / _LARGEST).view(torch.int8)), dim=-1)


def read_rows(kept: Num[Tensor, "*B W"], dtype: torch.dtype) -> Float[Tensor, "*B D"]:
    """What `keep_rows` was given, rounded."""
    if kept.dtype != torch.int8:
        return kept.to(dtype)
    scale = kept[..., -BYTES_OF_SCALE:].clone(memory_format=torch.contiguous_format).view(torch.float32)  # at a border
    return (kept[..., :-BYTES_OF_SCALE] * scale).to(dtype)


class PlainKernels:
    """Products in the operations that PyTorch brings along."""

    name = "PyTorch's"
    """Stands in what is remembered of choices among them and others."""
    lanes = 0
    """Widths that are multiples of this suit `weight_gradient`; 0 is none."""
    has_bf16 = False
    """Whether the kernels multiply in bfloat16: the blocks of GPT-2 in training, attention, the head's gradient."""

    @property
    def key(self) -> str:
        """What a choice among them and others depends on at least."""
        return f"{machine_id()} {self.name} {torch.get_num_threads()} threads"

    def arranged(self, stored: Stored, *, spend: bool = False) -> Stored:
        """A matrix as `linear` wants it: the same one, or the same weights in another order.

        Args:
            stored: The matrix.
            spend: Where the order is another one, the weights given are used up: no more than one order is in memory.
        """
        return stored

    def linear(
        self, x: Float[Tensor, "B C"], stored: Stored, bias: Float[Tensor, " D"] | None = None
    ) -> Float[Tensor, "B D"]:
        """X @ weight.T + bias.

        Args:
            x: Some rows, contiguous, float32 on the CPU.
            stored: The matrix.
            bias: Added to each row.
        """
        return F.linear(inputs_for(stored, x), stored.widened(), bias)

    def rows(self, stored: Stored, idx: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape C"]:
        """Some rows of a matrix, in float32."""
        rows = stored.weight[idx].float()
        return rows if stored.scale is None else rows * stored.scale[idx, None]

    def weight_gradient(self, grad: Float[Tensor, "B D"], x: Float[Tensor, "B C"]) -> Float[Tensor, "D C"]:
        """Grad.T @ x: what the weights of a linear layer get."""
        return grad.T @ x

    def length(self, tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
        """The norm of all these tensors together, as of the gradients of a model."""
        return nn.utils.get_total_norm(tensors)

    def sum(self, x: Int[Tensor, " N"]) -> int:
        """The sum of 32-bit integers: every byte read once."""
        return int(x.sum())
