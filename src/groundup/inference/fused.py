"""GPT-2's blocks as one call of a compiled kernel, for new tokens with a cache on a CPU.

Of many tokens, such as a prompt, attention alone is computed so where a library multiplies faster. Without a cache, and
where somebody watches blocks by hooks, the modules of `gpt.py` compute them. All ways give the same result up to
rounding.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.inference.many_rows import pick_many
from groundup.inference.stored_linear import MAX_ROWS, StoredLinear
from groundup.kernels.block import BlockTensors, CompiledBlocks, Linear, Norm
from groundup.kernels.compiled import CompiledKernels
from groundup.model.gpt import Block, Blocks
from groundup.model.kv_cache import KVCache
from groundup.runtime.stored import Weights

CACHES: dict[Weights, torch.dtype | None] = {
    "fp32": None,
    "fp16": torch.float16,
    "bf16": torch.float16,  # three more bits of precision, and these numbers do not overflow
    "int8": torch.int8,
}
"""In what keys and values are kept; None is the model's own type."""


class FusedBlocks(Blocks):
    """Replaces the blocks of a model with stored matrices, and keeps them.

    Args:
        blocks: Of `gpt.py`, with stored matrices.
        weights: How those are stored; of fewer than 32 bits, keys and values are kept in as many.
        kernels: Compute them.
    """

    def __init__(self, blocks: Blocks, weights: Weights, kernels: CompiledKernels) -> None:
        super().__init__(blocks)
        self._weights: Weights = weights
        self.cache_dtype = CACHES[weights]
        self._kernels = kernels
        self._compiled: CompiledBlocks | None = None
        """Holds addresses: made at the first step, and again after tensors were loaded or moved."""
        self._hooks: list[Mapping[int, object]] = []
        """Of all parts: those who look into the blocks register there."""

    def forward(
        self, x: Float[Tensor, "B T C"], *, cache: KVCache | None = None, **context: Any
    ) -> Float[Tensor, "B T C"]:
        """As `Blocks`."""
        B, T, C = x.shape
        if cache is None or cache.static or self._is_watched():
            return super().forward(x, cache=cache, **context)
        cache.require_room(T)
        if self._compiled is None:
            tensors = [_tensors(cast("Block", block)) for block in self]
            self._compiled = CompiledBlocks(self._kernels.blocks, self._kernels.attend_layer, tensors)
        if B * T > MAX_ROWS and pick_many(self._kernels, self._weights, n_embd=C) != "kernels":
            return self._by_the_library(x, cache, self._compiled)
        x = x.contiguous().clone()  # changed in place
        self._compiled(x, cache.keys, cache.values, cache.held)
        return x

    def _by_the_library(self, x: Float[Tensor, "B T C"], cache: KVCache, compiled: CompiledBlocks) -> Tensor:
        """All but attention by the modules: where a library multiplies many rows faster."""
        for layer, block in enumerate(cast("Iterable[Block]", self)):
            qkv = block.attn.c_attn(block.ln_1(x)).contiguous()  # (B, T, 3 C)
            x = x + block.attn.c_proj(compiled.attend(layer, qkv, cache.keys, cache.values, cache.held))
            x = x + block.mlp(block.ln_2(x))
        return x

    def _is_watched(self) -> bool:
        if not self._hooks:
            parts = [part for part in self.modules() if part is not self]
            self._hooks = [hooks for part in parts for hooks in (part._forward_hooks, part._forward_pre_hooks)]
        return any(self._hooks)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._compiled = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> "FusedBlocks":
        self._compiled = None
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]


def _tensors(block: Block) -> BlockTensors:
    norms = (block.ln_1, block.ln_2)
    linears = cast("tuple[StoredLinear, ...]", (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj))
    return BlockTensors(
        [Norm(norm.weight, norm.bias, norm.eps) for norm in norms],
        [Linear(linear.stored, linear.bias) for linear in linears],
    )
