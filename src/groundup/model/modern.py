"""The other page: GPT-2 with what has been found since, each part a switch of `ModernConfig`.

It repeats the attention, the block and the model of `gpt.py` on purpose, so that GPT-2's page stays as published. Two
tests hold the pages together: with every switch at GPT-2's value both compute the same, bit for bit, and each switch
alone changes the logits. Sizes are named as in `gpt.py`.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.config.errors import UserError
from groundup.config.model import ModernConfig
from groundup.model.gpt import GPT, MLP, LayerNorm, TiedHead
from groundup.model.kv_cache import KVCache
from groundup.model.parameters import Table
from groundup.model.rope import Rotation, rope_angles, rotate


class CausalSelfAttention(nn.Module):
    """As GPT-2's; with rotary positions, queries and keys are turned by their positions before they meet."""

    def __init__(self, config: ModernConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.n_head, self.dropout = layer, config.n_head, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def project(self, x: Float[Tensor, "B T C"], rotation: Rotation | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head, each (B, H, T, D)."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(C, dim=2)  # each (B, T, C)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
        if rotation is not None:
            q, k = rotate(q, *rotation), rotate(k, *rotation)
        return q, k, v

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        rotation: Rotation | None,
        *,
        cache: KVCache | None = None,
        mask: Bool[Tensor, "*B T S"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Attend within x; with a cache, also to the S - T tokens it holds, as far as the mask allows."""
        B, T, C = x.shape
        q, k, v = self.project(x, rotation)  # each (B, H, T, D)
        if cache is None:
            dropout = self.dropout if self.training else 0.0
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        else:
            k, v = cache.update(self.layer, k, v)  # each (B, H, S, D)
            y = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=mask)
        y = y.transpose(1, 2).reshape(B, T, C)
        return F.dropout(self.c_proj(y), self.dropout, self.training)


class Block(nn.Module):
    """Attention, then MLP. Both read a normalized copy of the residual stream and add to it."""

    def __init__(self, config: ModernConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        rotation: Rotation | None,
        *,
        cache: KVCache | None = None,
        mask: Bool[Tensor, "*B T S"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Tokens exchange what they know, then each works on it."""
        x = x + self.attn(self.ln_1(x), rotation, cache=cache, mask=mask)
        return x + self.mlp(self.ln_2(x))


class Modern(nn.Module):
    """A GPT with the parts that its config names. Weights are still to be drawn or loaded, as for GPT."""

    PARAMETERS: ClassVar[Table] = GPT.PARAMETERS  # no switch adds a parameter

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        if config.vocab_size < 1:
            raise ValueError("vocab_size must be known before a model is built")
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if config.position == "learned" else None
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = TiedHead()
        self.recompute = False
        """As GPT's."""

    def forward(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        """Logits of the next token at every position.

        Args:
            idx: Token ids.
            cache: The tokens before idx; advances by T.

        Raises:
            UserError: More positions than block_size.
        """
        return self.logits(self.hidden(idx, cache=cache))

    def hidden(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T C"]:
        """What the head reads: the residual stream after the last norm."""
        T = idx.shape[1]
        end = T if cache is None else cache.length + T
        if end > self.config.block_size:
            raise UserError(f"the model's context is {self.config.block_size} tokens, {end} were given")
        positions = torch.arange(T, device=idx.device) if cache is None else cache.positions(T)
        mask = None if cache is None else cache.mask(T)
        x = self.wte(idx)  # (B, T, C)
        rotation = None
        if self.wpe is not None:
            x = x + self.wpe(positions)
        else:
            cos, sin = rope_angles(positions, self.config.head_dim, self.config.rope_base, x.dtype)
            rotation = cos.unsqueeze(-3), sin.unsqueeze(-3)  # the same for every head
        x = self.drop(x)
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, rotation, use_reentrant=False)
            else:
                x = block(x, rotation, cache=cache, mask=mask)
        if cache is not None:
            cache.advance(T)
        return self.ln_f(x)

    def logits(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """What the head makes of `hidden`, or of some of its positions."""
        return self.lm_head(hidden, self.wte.weight)

    @property
    def blocks(self) -> nn.ModuleList:
        """As GPT's."""
        return self.h

    @property
    def head_weight(self) -> Float[Tensor, "V C"] | None:
        """As GPT's; None once a switch makes the head more than a product."""
        return self.lm_head.matrix(self.wte.weight)

    def new_cache(self, batch_size: int, max_tokens: int, *, static: bool = False) -> KVCache:
        """An empty cache in the model's dtype and on its device."""
        return KVCache.for_config(self.config, batch_size, max_tokens, like=self.ln_f.weight, static=static)
