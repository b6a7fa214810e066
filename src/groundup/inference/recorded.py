"""GPT-2's blocks in half as many GPU kernels, for decoding steps that are recorded as a graph.

Everything but such a step is computed by the modules of `gpt.py`. Both ways give the same result up to rounding.
"""

from collections.abc import Callable
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor, nn

from groundup.inference.decode_step import add_norm, attend, decode_step_works, product
from groundup.model.gpt import Block, Blocks, LayerNorm
from groundup.model.kv_cache import KVCache
from groundup.model.swap import replace_modules

FEW = 4
"""Rows up to which our products, which read weights once per row, are faster than those of PyTorch."""


class RecordedBlocks(Blocks):
    """Replaces the blocks of a model, and keeps them."""

    def forward(
        self, x: Float[Tensor, "B T C"], *, cache: KVCache | None = None, **context: Any
    ) -> Float[Tensor, "B T C"]:
        """As `Blocks`."""
        if cache is None or not cache.static or x.shape[1] > 1:
            return super().forward(x, cache=cache, **context)
        cache.require_room(1)
        blocks = cast("list[Block]", list(self))
        stream = x[:, 0]
        if len(stream) <= FEW and all(map(_is_plain, blocks)):
            for layer, block in enumerate(blocks):
                qkv = product(stream, block.attn.c_attn, norm=block.ln_1)
                y = attend(qkv, cache.keys[layer], cache.values[layer], cache.lengths)
                stream = product(y, block.attn.c_proj, onto=stream)
                y = product(stream, block.mlp.c_fc, norm=block.ln_2, gelu=True)
                stream = product(y, block.mlp.c_proj, onto=stream)
            return stream[:, None]
        normed = blocks[0].ln_1(stream)
        for layer, block in enumerate(blocks):
            y = attend(block.attn.c_attn(normed), cache.keys[layer], cache.values[layer], cache.lengths)
            stream, normed = _add_norm(stream, block.attn.c_proj(y), block.ln_2)
            y = block.mlp.c_proj(block.mlp.act(block.mlp.c_fc(normed)))
            if layer + 1 < len(blocks):
                stream, normed = _add_norm(stream, y, blocks[layer + 1].ln_1)
            else:
                stream = stream + y
        return stream[:, None]


def use_decode_kernels(model: nn.Module, say: Callable[[str], None]) -> None:
    """Give GPT-2's blocks their decoding kernels where the model is on a GPU that they work on, in place.

    Args:
        model: In evaluation mode.
        say: Told in one line why they are not used.
    """

    def recorded(blocks: Blocks) -> Blocks:
        weight = cast("Block", blocks[0]).ln_1.weight if len(blocks) else None
        if weight is None or not weight.is_cuda:
            return blocks
        if why := decode_step_works(weight.device, weight.dtype):
            say(f"decoding needs more GPU kernels than it could: {why}")
            return blocks
        return RecordedBlocks(blocks)

    replace_modules(model, Blocks, recorded)


def _is_plain(block: Block) -> bool:
    """Whether no layer was swapped for another, as LoRA does."""
    linears = block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj
    return all(type(linear) is nn.Linear for linear in linears)


def _add_norm(x: Tensor, y: Tensor, norm: LayerNorm) -> tuple[Tensor, Tensor]:
    return add_norm(x, y, norm.weight, norm.bias, norm.eps)
