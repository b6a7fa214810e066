"""Keys and values of the tokens already seen, so that each new token costs one position and not all of them.

The cache is an argument of `forward`, never an attribute of a module: two conversations with one model are two
caches. It is allocated once, at its full length; decoding writes in place and reads a slice.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


class KVCache:
    """Preallocated keys and values of every layer.

    Args:
        n_layer: Layers of the model.
        batch_size: Sequences decoded side by side (B).
        n_head: Heads per layer (H).
        max_tokens: Positions to make room for (S_max).
        head_dim: Width of a head (D).
        dtype: Element type.
        device: Where to allocate.
    """

    def __init__(
        self,
        *,
        n_layer: int,
        batch_size: int,
        n_head: int,
        max_tokens: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (n_layer, batch_size, n_head, max_tokens, head_dim)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0
        """Tokens held, the same for every sequence."""

    @property
    def max_tokens(self) -> int:
        """Positions there is room for."""
        return self.keys.shape[3]

    def update(
        self, layer: int, k: Float[Tensor, "B H T D"], v: Float[Tensor, "B H T D"]
    ) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"]]:
        """Write the keys and values of T new tokens behind those held; return all S = length + T of them.

        The length stays as it is until `advance`, because every layer writes to the same positions.

        Raises:
            ValueError: There is no room for T more tokens.
        """
        end = self.length + k.shape[2]
        if end > self.max_tokens:
            raise ValueError(f"the cache has room for {self.max_tokens} tokens, {end} were given")
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, n_tokens: int) -> None:
        """Count n_tokens more as held; called once per forward, after the last layer."""
        self.length += n_tokens

    def truncate(self, length: int) -> None:
        """Forget everything from position `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} tokens to {length}")
        self.length = length

    def expand(self, batch_size: int) -> "KVCache":
        """A copy for batch_size sequences that share the one prompt held here: prefill once, sample many."""
        if self.keys.shape[1] != 1:
            raise ValueError(f"only a cache of one sequence expands, this one holds {self.keys.shape[1]}")
        n_layer, _, n_head, max_tokens, head_dim = self.keys.shape
        cache = KVCache(
            n_layer=n_layer,
            batch_size=batch_size,
            n_head=n_head,
            max_tokens=max_tokens,
            head_dim=head_dim,
            dtype=self.keys.dtype,
            device=self.keys.device,
        )
        cache.keys[:, :, :, : self.length] = self.keys[:, :, :, : self.length]
        cache.values[:, :, :, : self.length] = self.values[:, :, :, : self.length]
        cache.length = self.length
        return cache

    def keep(self, rows: Int[Tensor, " R"]) -> None:
        """Hold only these sequences, in this order: what has ended needs no room."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
