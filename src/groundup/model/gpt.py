"""GPT-2 (Radford et al. 2019): token and position embeddings, blocks, a final norm, and the embedding again as head."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from groundup.config.errors import UserError
from groundup.config.model import GPTConfig
from groundup.model.kv_cache import KVCache
from groundup.model.layers import Block, LayerNorm
from groundup.model.rope import rope_angles


class TiedHead(nn.Module):
    """The output projection. It has no weight of its own: the token embedding is given to it (Press & Wolf 2017)."""

    def forward(self, x: Float[Tensor, "*B C"], weight: Float[Tensor, "V C"]) -> Float[Tensor, "*B V"]:
        """How well every token fits what comes next."""
        return F.linear(x, weight)


class GPT(nn.Module):
    """A GPT-2. Parameters carry the names of the published checkpoints; the head is tied to `wte`.

    Construction leaves the weights as PyTorch's layers draw them: call `init_weights`, or load some.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if config.vocab_size < 1:
            raise ValueError("vocab_size must be known before a model is built")
        self.config = config
        self.recompute = False
        """Keep only the input of each block and compute it again for the backward pass (Chen et al. 2016): a third
        more work, a fraction of the memory."""
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd) if config.position == "learned" else None
        self.h = nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)])
        self.ln_f = LayerNorm(config.n_embd, bias=config.bias)
        self.lm_head = TiedHead()

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
        start = cache.length if cache is not None else 0
        end = start + idx.shape[1]
        if end > self.config.block_size:
            raise UserError(f"the model's context is {self.config.block_size} tokens, {end} were given")
        positions = torch.arange(start, end, device=idx.device)
        x = self.wte(idx)
        rotation = None
        if self.wpe is not None:
            x = x + self.wpe(positions)
        else:
            rotation = rope_angles(positions, self.config.head_dim, self.config.rope_base, x.dtype)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.h:
            if self.recompute and torch.is_grad_enabled():
                # The random generators are kept, too: dropout drops the same elements both times.
                x = checkpoint(block, x, rotation, use_reentrant=False)
            else:
                x = block(x, rotation, cache)
        if cache is not None:
            cache.advance(idx.shape[1])
        return self.ln_f(x)

    def logits(self, hidden: Float[Tensor, "*B C"]) -> Float[Tensor, "*B V"]:
        """What the head makes of `hidden`, or of some of its positions."""
        return self.lm_head(hidden, self.wte.weight)

    @property
    def head_weight(self) -> Float[Tensor, "V C"]:
        """W, where logits are hidden W^T and nothing else: the loss may then compute them in pieces."""
        return self.wte.weight

    def new_cache(self, batch_size: int, max_tokens: int) -> KVCache:
        """An empty cache in the model's dtype and on its device."""
        weight = self.wte.weight
        return KVCache(
            n_layer=self.config.n_layer,
            batch_size=batch_size,
            n_head=self.config.n_head,
            max_tokens=max_tokens,
            head_dim=self.config.head_dim,
            dtype=weight.dtype,
            device=weight.device,
        )
