"""The other page: GPT-2 with later improvements, each a switch of `ModernConfig`.

It repeats the attention, the MLP, the block and the model of `gpt.py` on purpose, so that GPT-2's page stays as
published. Two tests hold the pages together: with every switch at GPT-2's value both compute the same, bit for bit, and
each switch alone changes the logits. Sizes are named as in `gpt.py`; K is the number of heads with keys and values.
"""

from typing import Any, assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.config.errors import UserError
from groundup.config.model import ModernConfig
from groundup.model.gpt import GPT, LayerNorm, TiedHead
from groundup.model.kv_cache import KVCache
from groundup.model.ngrams import NgramEmbedding
from groundup.model.parameters import BIAS, EMBEDDING, GAIN, HALF, ONTO_STREAM, TABLE, ZERO_MATRIX, Rule, Table
from groundup.model.rope import Rotate, Rotation, rope_angles

Values = Float[Tensor, "B K T D"]


class RMSNorm(nn.Module):
    """Give each token's vector the mean square 1, then a learned gain: LayerNorm without mean and shift."""

    def __init__(self, n_embd: int, *, eps: float) -> None:
        super().__init__()
        self.eps, self.bias = eps, None
        self.weight = nn.Parameter(torch.ones(n_embd))

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Normalize every token on its own."""
        common = torch.promote_types(x.dtype, self.weight.dtype)  # as PyTorch does, without a warning
        return F.rms_norm(x.to(common), self.weight.shape, self.weight, self.eps).to(x.dtype)


class ReLUSquared(nn.Module):
    """max(0, x)^2."""

    def forward(self, x: Tensor) -> Tensor:
        """Of every element."""
        return F.relu(x).square()


def _norm(config: ModernConfig) -> LayerNorm | RMSNorm:
    match config.norm:
        case "layer":
            return LayerNorm(config.n_embd, bias=config.bias, eps=config.norm_eps)
        case "rms":
            return RMSNorm(config.n_embd, eps=config.norm_eps)
        case never:
            assert_never(never)


def _activation(config: ModernConfig) -> nn.Module:
    parts = {"gelu_tanh": nn.GELU(approximate="tanh"), "gelu": nn.GELU(), "relu": nn.ReLU(), "relu2": ReLUSquared()}
    return parts[config.activation]


class CausalSelfAttention(nn.Module):
    """As GPT-2's; queries and keys may be normalized and rotated, values mixed with those of the first layer."""

    def __init__(self, config: ModernConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        width = config.head_dim * (config.n_head + 2 * config.kv_heads)
        self.c_attn = nn.Linear(config.n_embd, width, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.drop = nn.Dropout(config.dropout)
        self.rotate = Rotate()
        self.attend: Any = F.scaled_dot_product_attention
        mixes = config.value_residual and layer > 0
        self.value_mix = nn.Parameter(torch.full((1,), 0.5)) if mixes else None

    def project(
        self, x: Float[Tensor, "B T C"], rotation: Rotation | None, first: Values | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, K, T, D); `first` is the values of the first layer."""
        B, T, _ = x.shape
        D, H, K = self.config.head_dim, self.config.n_head, self.config.kv_heads
        q, k, v = self.c_attn(x).view(B, T, -1, D).split((H, K, K), dim=2)  # (B, T, H, D) and twice (B, T, K, D)
        eps = self.config.norm_eps if self.config.qk_norm else None
        if rotation is not None:
            q, k = (self.rotate(x, *rotation, norm_eps=eps) for x in (q, k))
        elif eps is not None:
            q, k = (F.rms_norm(x, (D,), eps=eps) for x in (q, k))
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D) and twice (B, K, T, D)
        if self.value_mix is not None:
            v = v + self.value_mix * (first - v)
        return q, k, v

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        rotation: Rotation | None,
        first: Values | None,
        *,
        cache: KVCache | None = None,
        mask: Bool[Tensor, "*B T S"] | None = None,
    ) -> tuple[Float[Tensor, "B T C"], Values]:
        """Attend within x; with a cache, also to the S - T tokens it holds, as far as the mask allows.

        Returns:
            What is added to the stream, and the values of x.
        """
        q, k, v = self.project(x, rotation, first)
        own, grouped = v, self.config.kv_heads < self.config.n_head
        if cache is None:
            dropout = self.drop.p if self.training else 0.0
            y = self.attend(q, k, v, dropout_p=dropout, is_causal=True, enable_gqa=grouped)
        else:
            k, v = cache.update(self.layer, k, v)  # each (B, K, S, D)
            q, causal = q.to(k.dtype), mask is None and x.shape[1] > 1
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=grouped)
        y = y.transpose(1, 2).reshape(x.shape)
        return self.drop(self.c_proj(y)), own


class MLP(nn.Module):
    """As GPT-2's, of any width and activation."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, config.mlp_width, bias=config.bias)
        self.act = _activation(config)
        self.c_proj = nn.Linear(config.mlp_width, config.n_embd, bias=config.bias)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Transform each token's vector on its own."""
        return self.drop(self.c_proj(self.act(self.c_fc(x))))


class Block(nn.Module):
    """Attention, then MLP. Both read a normalized copy of the residual stream and add to it."""

    def __init__(self, config: ModernConfig, layer: int) -> None:
        super().__init__()
        self.ln_1 = _norm(config)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = _norm(config)
        self.mlp = MLP(config)
        self.x_scale = nn.Parameter(torch.ones(1)) if config.stream_scales else None
        self.x0_scale = nn.Parameter(torch.zeros(1)) if config.stream_scales else None

    def forward(
        self,
        x: Float[Tensor, "B T C"],
        x0: Float[Tensor, "B T C"],
        rotation: Rotation | None,
        first: Values | None,
        *,
        cache: KVCache | None = None,
        mask: Bool[Tensor, "*B T S"] | None = None,
    ) -> tuple[Float[Tensor, "B T C"], Values | None]:
        """Attention moves information between tokens, the MLP works on each.

        Args:
            x: The residual stream.
            x0: The stream before the first block.
            rotation: Of queries and keys.
            first: The values of the first layer, None in it.
            cache: The tokens before.
            mask: Which of them each token may attend to.

        Returns:
            The stream, and the values of this layer, which need not be there where no layer mixes them.
        """
        if self.x_scale is not None and self.x0_scale is not None:
            x = self.x_scale * x + self.x0_scale * x0
        y, values = self.attn(self.ln_1(x), rotation, first, cache=cache, mask=mask)
        x = x + y
        return x + self.mlp(self.ln_2(x)), values


class Modern(nn.Module):
    """A GPT with the parts that its config names. Weights are still to be drawn or loaded, as for GPT."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        if config.vocab_size < 1:
            raise ValueError("vocab_size must be known before a model is built")
        self.config = config
        self.PARAMETERS = _table(config)
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe: nn.Embedding | None = None
        match config.position:
            case "learned":
                self.wpe = nn.Embedding(config.block_size, config.n_embd)
            case "rope":
                pass  # angles, in `hidden`
            case never:
                assert_never(never)
        self.ngrams = NgramEmbedding(config) if config.ngram > 1 else None
        self.smear = nn.Parameter(torch.zeros(config.n_embd)) if config.smear else None
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = _norm(config)
        self.unembed = None if config.tied_head else nn.Embedding(config.vocab_size, config.n_embd)
        self.lm_head = TiedHead()
        self.logit_softcap = config.logit_softcap
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
        if self.smear is not None:
            x = x + self.smear.to(x.dtype) * self.vectors_before(idx, cache=cache)
        if self.ngrams is not None:
            x = x + self.ngrams(idx, cache=cache).to(x.dtype)
        rotation = None
        if self.wpe is not None:
            x = x + self.wpe(positions)
        else:
            c = self.config
            cos, sin = rope_angles(positions, c.head_dim, c.rope_base, x.dtype, share=c.rope_share)
            rotation = cos.unsqueeze(-2), sin.unsqueeze(-2)  # the same for every head
        x = x0 = self.drop(x)
        first = None
        for block in self.blocks:
            if self.recompute and torch.is_grad_enabled():
                x, values = checkpoint(block, x, x0, rotation, first, use_reentrant=False)
            else:
                x, values = block(x, x0, rotation, first, cache=cache, mask=mask)
            if self.config.value_residual and first is None:
                first = values
        if cache is not None:
            cache.advance(T)
        return self.ln_f(x)

    def vectors_before(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T C"]:
        """The vector of the token before each; zeros before the first. A cache knows the ids before and gets these."""
        seen = F.pad(idx, (1, 0), value=-1) if cache is None else cache.remember(idx, before=1)
        before = seen[:, :-1]
        return self.wte(before.clamp(min=0)) * (before >= 0)[..., None]

    def logits(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """The head's scores for `hidden`, or for some of its positions."""
        logits = self.lm_head(hidden, self.unembedding.weight)
        cap = self.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    @property
    def blocks(self) -> nn.ModuleList:
        """As GPT's."""
        return self.h

    @property
    def unembedding(self) -> nn.Embedding:
        """The embedding that the head multiplies with: that of the tokens, or one of its own."""
        return self.wte if self.unembed is None else self.unembed

    @property
    def head_weight(self) -> Float[Tensor, "V C"]:
        """As GPT's, before the soft cap."""
        return self.lm_head.matrix(self.unembedding.weight)

    def new_cache(self, batch_size: int, max_tokens: int, *, static: bool = False) -> KVCache:
        """An empty cache in the model's dtype and on its device."""
        return KVCache.for_config(self.config, batch_size, max_tokens, like=self.ln_f.weight, static=static)


def _table(config: ModernConfig) -> Table:
    """GPT's, and what the switches add or change."""
    zero = config.proj_init == "zero"
    onto_stream = ZERO_MATRIX if zero else ONTO_STREAM
    queries = config.n_head // config.kv_heads  # maps as large as that of the keys
    return {
        **GPT.PARAMETERS,
        "ngrams.weight": TABLE,
        "smear": BIAS,
        "attn.c_attn.weight": Rule("normal", decays=True, maps=queries + 2),
        "attn.c_proj.weight": onto_stream,
        "mlp.c_proj.weight": onto_stream,
        "attn.value_mix": HALF,
        "x_scale": GAIN,
        "x0_scale": BIAS,
        "unembed.weight": Rule("zero", decays=True) if zero else EMBEDDING,
    }
