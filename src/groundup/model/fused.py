"""GPT-2's blocks as one call of a compiled kernel, for a few new tokens with a cache on a CPU.

A longer input, such as a prompt, and blocks with hooks are computed by the modules of `gpt.py`. Both ways give the
same result up to rounding.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.model.gpt import Block, Blocks, LayerNorm
from groundup.model.kv_cache import KVCache
from groundup.model.stored_linear import MAX_ROWS, StoredLinear
from groundup.runtime.block import BlockTensors, CompiledBlocks, Linear, Norm
from groundup.runtime.kernels import CompiledKernels


class FusedBlocks(Blocks):
    """Replaces the blocks of a model with stored matrices, and keeps them.

    Args:
        blocks: Of `gpt.py`, with stored matrices.
        kernels: Compute them.
        cache_dtype: Of the keys and values that are kept; None is the model's own.
    """

    def __init__(self, blocks: Blocks, kernels: CompiledKernels, cache_dtype: torch.dtype | None = None) -> None:
        super().__init__(blocks)
        self.cache_dtype = cache_dtype
        self._kernels = kernels
        self._compiled: CompiledBlocks | None = None
        """Holds addresses: made at the first step, and again after tensors were loaded or moved."""
        self._hooks: list[Mapping[int, object]] = []
        """Of all parts: those who look into the blocks register there."""

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        *,
        recompute: bool = False,
        cache: KVCache | None = None,
        **context: Any,
    ) -> Float[Tensor, "B T C"]:
        """As `Blocks`."""
        B, T, C = x.shape
        if cache is None or cache.static or B * T > MAX_ROWS or self._is_watched():
            return super().forward(x, recompute=recompute, cache=cache, **context)
        cache.require_room(T)
        if self._compiled is None:
            self._compiled = CompiledBlocks(self._kernels.blocks, [_tensors(cast("Block", block)) for block in self])
        x = x.reshape(B * T, C).clone()  # changed in place
        self._compiled(
            x,
            cache.keys,
            cache.values,
            [row for row in range(B) for _ in range(T)],
            [held + step for held in cache.held for step in range(T)],
        )
        return x.view(B, T, C)

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
    linears = (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
    return BlockTensors(
        [_norm(block.ln_1), _norm(block.ln_2)], [_linear(cast("StoredLinear", linear)) for linear in linears]
    )


def _norm(norm: LayerNorm) -> Norm:
    return Norm(norm.weight, norm.bias, norm.eps)


def _linear(linear: StoredLinear) -> Linear:
    return Linear(linear.stored, linear.bias)
