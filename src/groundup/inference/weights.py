"""Decode from weights stored in 32, 16 or 8 bits: linear layers, token embedding and head are swapped.

A tied embedding and head stay one matrix. A few rows are multiplied by the kernels of kernels/compiled.py; many rows,
such as a prompt, are bound by arithmetic: for them `pick_many` measures whether the kernels are fastest, or a library
with the matrix widened. Stored models are for inference: their weights are not trained.
"""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.inference.fused import FusedBlocks
from groundup.inference.stored_linear import StoredLinear, StoredMatrix
from groundup.kernels.compiled import CompiledKernels
from groundup.model.gpt import GPT, Blocks, TiedHead
from groundup.model.modern import Modern
from groundup.model.swap import replace_linears, replace_modules, use_kernels
from groundup.model.types import LanguageModel
from groundup.runtime.stored import DTYPES, PlainKernels, Stored, Weights, store


class StoredEmbedding(StoredMatrix):
    """Replaces the token embedding."""

    def forward(self, idx: Int[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
        """The rows of these ids, in float32."""
        return self.kernels.rows(self.stored, idx)


class StoredHead(nn.Module):
    """Replaces the tied head.

    Args:
        embedding: Whose matrix it multiplies with.
    """

    def __init__(self, embedding: StoredEmbedding) -> None:
        super().__init__()
        self._embedding = (embedding,)  # a tuple: it is no part of this module

    @property
    def stored(self) -> Stored:
        """The matrix as the kernels want it."""
        return self._embedding[0].stored

    @property
    def kernels(self) -> PlainKernels:
        """What it is multiplied by."""
        return self._embedding[0].kernels

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks at its products by hooks."""
        return bool(self._forward_hooks or self._forward_pre_hooks)

    def forward(self, x: Float[Tensor, "*B C"], weight: Tensor) -> Float[Tensor, "*B V"]:
        """Logits; the weight given is the embedding's, without its scales."""
        return self._embedding[0].product(x)

    def matrix(self, weight: Tensor) -> Float[Tensor, "V C"]:
        """The matrix in float32."""
        return self.stored.widened()


def use_weights(model: GPT | Modern, weights: Weights, kernels: PlainKernels) -> None:
    """Store the matrices of a model on the CPU in this type and multiply with them by these kernels, in place.

    Works on a model without data, too (device "meta"): the names of its state are then those of a stored model.
    """
    replace_linears(model, lambda linear: StoredLinear(linear, weights, kernels))
    head_table = model.unembedding if isinstance(model, Modern) else model.wte
    stored = {table: StoredEmbedding(table.weight, weights, kernels) for table in {model.wte, head_table}}
    head = StoredHead(stored[head_table])
    replace_modules(model, TiedHead, lambda _: head)
    replace_modules(model, nn.Embedding, lambda table: stored.get(table, table))
    use_kernels(model, kernels)
    if isinstance(kernels, CompiledKernels):
        replace_modules(model, Blocks, lambda blocks: FusedBlocks(blocks, weights, kernels))


def stored_tensors(
    name: str, blocks: Iterable[Tensor], model: GPT | Modern, weights: Weights
) -> Iterator[tuple[str, Tensor]]:
    """What a tensor of an ordinary model is in the state of one that went through `use_weights`.

    Args:
        name: Its name.
        blocks: It, in any floating-point type, whole or in blocks of rows: no more than one is held.
        model: The one with stored matrices.
        weights: How they are stored.
    """
    owner, _, kind = name.rpartition(".")
    part_of_model = model.get_submodule(owner)
    is_matrix = kind == "weight" and isinstance(part_of_model, StoredMatrix)
    wanted: Tensor = getattr(part_of_model, kind)
    weight = torch.empty(wanted.shape, dtype=wanted.dtype)  # filled block by block: pieces would leave gaps behind
    scale = torch.empty(len(weight)) if is_matrix and weights == "int8" else None
    n_rows = 0
    for block in blocks:
        part = store(block, weights if is_matrix else "fp32")
        rows = slice(n_rows, n_rows := n_rows + len(block))
        weight[rows] = part.weight
        if scale is not None and part.scale is not None:
            scale[rows] = part.scale
    yield name, weight
    if scale is not None:
        yield f"{owner}.scale", scale


def arrange_weights(model: nn.Module) -> None:
    """Bring the weights of a model, which are nobody else's, to where and into the order that the kernels want."""
    for part in model.modules():
        if isinstance(part, StoredMatrix):
            part.arrange(spend=True)


def weights_of(model: nn.Module) -> Weights | None:
    """How the matrices of a model are stored; None where they are ordinary parameters."""
    matrix = next((part for part in model.modules() if isinstance(part, StoredMatrix)), None)
    return None if matrix is None else next(name for name, dtype in DTYPES.items() if dtype == matrix.weight.dtype)


def kernels_of(model: LanguageModel) -> PlainKernels:
    """What a model with stored matrices multiplies by; PyTorch's operations for another."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    return next((part.kernels for part in parts if isinstance(part, StoredMatrix)), PlainKernels())
