"""The baseline: a table of how likely each token is after each other token."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from groundup.config.model import BigramConfig
from groundup.model.kv_cache import KVCache
from groundup.model.parameters import Rule, Table


class Bigram(nn.Module):
    """Logits of the next token, looked up by the current one."""

    PARAMETERS: ClassVar[Table] = {"table.weight": Rule("zero", decays=True)}

    def __init__(self, config: BigramConfig) -> None:
        super().__init__()
        self.config = config
        self.head_weight, self.logit_softcap = None, 0.0
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)
        nn.init.zeros_(self.table.weight)

    def forward(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        """Logits; a bigram looks at no earlier tokens, so it needs no cache."""
        return self.logits(self.hidden(idx, cache=cache))

    def hidden(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T V"]:
        """The rows of the table, which are logits already."""
        return self.table(idx)

    def logits(self, hidden: Float[Tensor, "*B V"]) -> Float[Tensor, "*B V"]:
        """The same rows: a bigram has no head."""
        return hidden

    def new_cache(self, batch_size: int, max_tokens: int, *, static: bool = False) -> KVCache:
        """A cache without layers, as the protocol asks for one."""
        return KVCache(n_layer=0, batch_size=batch_size, n_head=1, max_tokens=max_tokens, head_dim=1)


def fit_bigram(ids: NDArray[np.integer], vocab_size: int, *, smoothing: float = 1.0) -> Bigram:
    """The table with the lowest loss on a stream of ids, by counting: logit = ln(count + smoothing).

    Args:
        ids: The training stream.
        vocab_size: Number of ids.
        smoothing: Added to every count, so that an unseen pair is unlikely and not impossible.
    """
    pairs = ids[:-1].astype(np.int64) * vocab_size + ids[1:]
    counts = np.bincount(pairs, minlength=vocab_size**2).reshape(vocab_size, vocab_size)
    model = Bigram(BigramConfig(vocab_size=vocab_size))
    with torch.no_grad():
        model.table.weight.copy_(torch.from_numpy(counts + smoothing).log())
    return model
