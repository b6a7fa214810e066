"""Vectors of the last tokens together, beside the vector of each token.

Which letters follow depends first of all on the last two or three. Attention has to learn to put them together; a table
that has a row for each run of tokens says it at once, for the cost of a look-up (Huang et al. 2025, "Over-Tokenized
Transformer"). There are too many runs for a row each, so they share the rows of one table by a hash.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from groundup.config.model import ModernConfig
from groundup.model.kv_cache import KVCache

FACTOR = 1_000_003
PRIME = 2**31 - 1
"""A run's hash is a polynomial of its ids at FACTOR modulo PRIME: sums and products that fit into 64 bits."""


def ngram_rows(seen: Int[Tensor, "B S"], longest: int, n_rows: int) -> Int[Tensor, "B T N"]:
    """Where the runs of 2, 3, ..., `longest` tokens that end at each token stand in a table of `n_rows`.

    Args:
        seen: Ids, with the longest - 1 before them; -1 where there is none.
        longest: Tokens of the longest run (N + 1).
        n_rows: Of the table.
    """
    T = seen.shape[1] - longest + 1
    back = [seen[:, longest - 1 - j :][:, :T] + 1 for j in range(longest)]  # the token j before
    hashed, rows = back[0], []
    for before in back[1:]:
        hashed = (hashed * FACTOR + before) % PRIME
        rows.append(hashed % n_rows)
    return torch.stack(rows, dim=-1)


class NgramEmbedding(nn.Module):
    """A table whose rows are the vectors of runs of tokens."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.longest = config.ngram
        self.weight = nn.Parameter(torch.empty(config.ngram_rows, config.n_embd))
        self.sparse = False
        """Whether the gradient names the rows that were used, and has no others. Neither DDP nor FSDP can have that."""

    def forward(self, idx: Int[Tensor, "B T"], *, cache: KVCache | None = None) -> Float[Tensor, "B T C"]:
        """The sum of the vectors of all runs that end at each token; a cache knows the ids before and gets these."""
        before = self.longest - 1
        seen = F.pad(idx, (before, 0), value=-1) if cache is None else cache.remember(idx, before=before)
        rows = ngram_rows(seen, self.longest, len(self.weight))  # (B, T, N)
        sparse = self.sparse and not torch.compiler.is_compiling()
        return F.embedding_bag(rows.flatten(0, 1), self.weight, mode="sum", sparse=sparse).view(*idx.shape, -1)
