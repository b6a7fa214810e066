"""GPT-2's block as one call of a compiled kernel, for a few new tokens with a cache on a CPU.

A longer input, such as a prompt, and a block with hooks are computed by the modules of `gpt.py`. Both ways give the
same result up to rounding.
"""

from collections.abc import Mapping
from typing import Any, cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from groundup.model.gpt import Block, LayerNorm
from groundup.model.kv_cache import KVCache
from groundup.model.stored_linear import MAX_ROWS, StoredLinear
from groundup.runtime.block import CompiledBlock, Linear, Norm
from groundup.runtime.kernels import CompiledKernels


class FusedBlock(Block):
    """Replaces a block with stored matrices, and keeps its parts.

    Args:
        block: Of `gpt.py`, with stored matrices.
        kernels: Compute it.
    """

    def __init__(self, block: Block, kernels: CompiledKernels) -> None:
        nn.Module.__init__(self)
        self.ln_1, self.attn, self.ln_2, self.mlp = block.ln_1, block.attn, block.ln_2, block.mlp
        self._kernels = kernels
        self._compiled: CompiledBlock | None = None
        """Holds addresses: made at the first step, and again after tensors were loaded or moved."""
        self._hooks: list[Mapping[int, object]] = []
        """Of all parts: those who look into the block register there."""

    def forward(
        self, x: Float[Tensor, "B T C"], *, cache: KVCache | None = None, mask: Bool[Tensor, "*B T S"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """As `Block`."""
        B, T, C = x.shape
        if cache is None or cache.static or B * T > MAX_ROWS or self._is_watched():
            return super().forward(x, cache=cache, mask=mask)
        cache.require_room(T)
        if self._compiled is None:
            self._compiled = self._compile()
        layer = self.attn.layer
        x = x.reshape(B * T, C).clone()  # changed in place
        self._compiled(
            x,
            cache.keys[layer],
            cache.values[layer],
            [row for row in range(B) for _ in range(T)],
            [held + step for held in cache.held for step in range(T)],
        )
        return x.view(B, T, C)

    def _is_watched(self) -> bool:
        if not self._hooks:
            parts = [part for part in self.modules() if part is not self]
            self._hooks = [hooks for part in parts for hooks in (part._forward_hooks, part._forward_pre_hooks)]
        return any(self._hooks)

    def _compile(self) -> CompiledBlock:
        linears = (self.attn.c_attn, self.attn.c_proj, self.mlp.c_fc, self.mlp.c_proj)
        return CompiledBlock(
            self._kernels.block,
            [_norm(self.ln_1), _norm(self.ln_2)],
            [_linear(cast("StoredLinear", linear)) for linear in linears],
        )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._compiled = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> "FusedBlock":
        self._compiled = None
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]


def _norm(norm: LayerNorm) -> Norm:
    return Norm(norm.weight, norm.bias, norm.eps)


def _linear(linear: StoredLinear) -> Linear:
    return Linear(linear.stored, linear.bias)
