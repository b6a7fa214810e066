"""GPT-2 (Radford et al. 2019) on one page, top to bottom: norm, attention, MLP, block, model.

Sizes: B sequences of T tokens, C = n_embd, H = n_head heads of width D = C / H, V = vocab_size. Parameters carry the
names of the published checkpoints; `init.py` draws initial ones. On a first reading pass over cache, mask, recompute.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig, TransformerConfig
from groundup.model.kv_cache import KVCache
from groundup.model.parameters import BIAS, EMBEDDING, GAIN, MATRIX, ONTO_STREAM, QKV, Table


class LayerNorm(nn.Module):
    """Give each token's vector mean 0 and variance 1, then a learned gain and shift (Ba et al. 2016)."""

    def __init__(self, n_embd: int, *, bias: bool, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd)) if bias else None

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Normalize every token on its own."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, eps=self.eps)


class CausalSelfAttention(nn.Module):
    """Every token gathers values from itself and the tokens before it (Vaswani et al. 2017, section 3.2)."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.n_head = layer, config.n_head
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # queries, keys and values
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.drop = nn.Dropout(config.dropout)
        self.attend: Any = F.scaled_dot_product_attention  # swap.py may know a faster one

    def project(self, x: Float[Tensor, "B T C"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of every head, each (B, H, T, D)."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(C, dim=2)  # each (B, T, C)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
        return q, k, v

    def forward(
        self, x: Float[Tensor, "B T C"], *, cache: KVCache | None = None, mask: Bool[Tensor, "*B T S"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """Attend within x; with a cache, also to the S - T tokens it holds, as far as the mask allows."""
        B, T, C = x.shape
        q, k, v = self.project(x)  # each (B, H, T, D)
        if cache is None:
            y = self.attend(q, k, v, dropout_p=self.drop.p if self.training else 0.0, is_causal=True)
        else:
            k, v = cache.update(self.layer, k, v)  # each (B, H, S, D)
            y = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=mask, is_causal=mask is None and T > 1)
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return self.drop(self.c_proj(y))


class MLP(nn.Module):
    """Two layers, four times wider in between, applied to each token on its own."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.act = nn.GELU(approximate="tanh")  # the form GPT-2 was trained with (Hendrycks & Gimpel 2016)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Transform each token's vector on its own."""
        return self.drop(self.c_proj(self.act(self.c_fc(x))))  # (B, T, C), with 4C in between


class Block(nn.Module):
    """Attention, then MLP. Both read a normalized copy of the residual stream and add to it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(
        self, x: Float[Tensor, "B T C"], *, cache: KVCache | None = None, mask: Bool[Tensor, "*B T S"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """Attention moves information between tokens, the MLP works on each."""
        x = x + self.attn(self.ln_1(x), cache=cache, mask=mask)
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.ModuleList):
    """The L blocks, one after the other: the units of recomputing, of FSDP's cut and of LoRA."""

    cache_dtype: torch.dtype | None = None  # of the keys and values that are kept; None is the model's own

    def forward(self, x: Float[Tensor, "B T C"], *, recompute: bool = False, **context: Any) -> Float[Tensor, "B T C"]:
        """Send the stream through all; the context (cache, mask) is for each of them."""
        for block in self:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x, **context)
        return x


class TiedHead(nn.Module):
    """The output projection. It has no weight of its own: it is given the token embedding (Press & Wolf 2017)."""

    def forward(self, x: Float[Tensor, "*B C"], weight: Float[Tensor, "V C"]) -> Float[Tensor, "*B V"]:
        """A score for each of the V tokens as the next one."""
        return F.linear(x, weight)

    def matrix(self, weight: Float[Tensor, "V C"]) -> Float[Tensor, "V C"]:
        """The matrix that x is multiplied with."""
        return weight


class GPT(nn.Module):
    """GPT-2. A new one has PyTorch's default weights: call `init_weights`, or load some."""

    PARAMETERS: ClassVar[Table] = {
        "wte.weight": EMBEDDING,
        "wpe.weight": EMBEDDING,
        "attn.c_attn.weight": QKV,
        "attn.c_proj.weight": ONTO_STREAM,
        "mlp.c_fc.weight": MATRIX,
        "mlp.c_proj.weight": ONTO_STREAM,
        **dict.fromkeys(("ln_1.weight", "ln_2.weight", "ln_f.weight"), GAIN),
        **dict.fromkeys(("ln_1.bias", "ln_2.bias", "ln_f.bias"), BIAS),
        **dict.fromkeys(("attn.c_attn.bias", "attn.c_proj.bias", "mlp.c_fc.bias", "mlp.c_proj.bias"), BIAS),
    }
    """The role of each parameter, by the end of its name: it decides initial weights, weight decay and Muon."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if config.vocab_size < 1:
            raise ValueError("vocab_size must be known before a model is built")
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # token embedding
        self.wpe = nn.Embedding(config.block_size, config.n_embd)  # position embedding
        self.drop = nn.Dropout(config.dropout)
        self.h = Blocks([Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = TiedHead()
        self.logit_softcap = 0.0  # GPT-2's logits are not bounded
        self.recompute = False  # keep only each block's input; the backward pass computes it again (Chen et al. 2016)

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
        x = self.drop(self.wte(idx) + self.wpe(positions))  # (B, T, C), and so to the end
        x = self.h(x, cache=cache, mask=mask, recompute=self.recompute and torch.is_grad_enabled())
        if cache is not None:
            cache.advance(T)
        return self.ln_f(x)

    def logits(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """The head's scores for `hidden`, or for some of its positions."""
        return self.lm_head(hidden, self.wte.weight)

    @property
    def blocks(self) -> nn.ModuleList:
        """The L blocks, by the name that they have in every model."""
        return self.h

    @property
    def head_weight(self) -> Float[Tensor, "V C"]:
        """W of logits = hidden W^T: with it the loss can compute the logits in chunks."""
        return self.lm_head.matrix(self.wte.weight)

    def new_cache(self, batch_size: int, max_tokens: int, *, static: bool = False) -> KVCache:
        """An empty cache on the model's device."""
        like = self.ln_f.weight if self.h.cache_dtype is None else self.ln_f.weight.to(self.h.cache_dtype)
        return KVCache.for_config(self.config, batch_size, max_tokens, like=like, static=static)
