"""Causal self-attention: every token gathers from the tokens before it (Vaswani et al. 2017, section 3.2)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from groundup.config.model import GPTConfig
from groundup.model.kv_cache import KVCache
from groundup.model.rope import rotate

Rotation = tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]]


class CausalSelfAttention(nn.Module):
    """Multi-head attention with one fused projection for queries, keys and values.

    Args:
        config: The model's shape.
        layer: Index of the block, the address in the KV cache.
    """

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.n_head, self.dropout = layer, config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(
        self, x: Float[Tensor, "B T C"], rotation: Rotation | None = None, cache: KVCache | None = None
    ) -> Float[Tensor, "B T C"]:
        """Attend from every token of x to itself and what came before, in x and in the cache."""
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, C // self.n_head)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each (B, H, T, D)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        dropout = self.dropout if self.training else 0.0
        if cache is None:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        else:
            k, v = cache.update(self.layer, k.to(cache.keys.dtype), v.to(cache.values.dtype))
            y = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=_mask(T, k.shape[2], x.device))
        # (B, H, T, D) -> (B, T, C): heads side by side again
        return F.dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C)), self.dropout, self.training)


def _mask(T: int, S: int, device: torch.device) -> Tensor | None:
    """Which of S tokens the last T of them may see: `is_causal` would align the triangle with the first instead."""
    return None if T == 1 else torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)
