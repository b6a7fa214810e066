"""Keys and values of the tokens already seen, so that each new token costs one position and not all of them.

The cache is an argument of `forward`, never an attribute of a module: two conversations with one model are two
caches. It is allocated once, at its full length, and written in place.

Rows have lengths of their own. While all are equally long, reading is a slice and a single new token needs no mask, as
in the decoding of one prompt. Otherwise positions and mask come from the lengths, which lie on the device. A static
cache always reads its full length under a mask: then no shape of a decoding step changes from one token to the next,
and the step can be compiled once or captured as a graph.
"""

import copy
import math
import mmap
from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from groundup.config.model import TransformerConfig
from groundup.runtime.stored import BYTES_OF_SCALE, keep_rows, read_rows


class KVCache:
    """Preallocated keys and values of every layer.

    Args:
        n_layer: Layers of the model.
        batch_size: Sequences decoded side by side (B).
        n_head: Heads with keys and values of their own, per layer (H).
        max_tokens: Positions to make room for (S_max).
        head_dim: Width of a head (D).
        dtype: Element type; with 8 bits, each row of keys or values has its scale behind it: see `keep_rows`.
        device: Where to allocate.
        static: Read all max_tokens positions in every step.
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
        static: bool = False,
    ) -> None:
        self.head_dim = head_dim
        shape = (n_layer, batch_size, n_head, max_tokens, head_dim + (BYTES_OF_SCALE if dtype == torch.int8 else 0))
        self.keys, self.values = _zeros(shape, dtype, device), _zeros(shape, dtype, device)
        self.ids = torch.zeros(batch_size, max_tokens, dtype=torch.long, device=device)
        """Those that were read, where the model asked to `remember` them."""
        self.static = static
        self.held = [0] * batch_size
        """Tokens held by every row, on the host, where reading them does not wait for the device."""
        self._lengths: Tensor | None = None
        self._places: tuple[Tensor, Tensor] | None = None

    @classmethod
    def for_config(
        cls, config: TransformerConfig, batch_size: int, max_tokens: int, *, like: Tensor, static: bool = False
    ) -> Self:
        """An empty cache for a model of this shape whose weights are like a tensor."""
        return cls(
            n_layer=config.n_layer,
            batch_size=batch_size,
            n_head=config.kv_heads,
            max_tokens=max_tokens,
            head_dim=config.head_dim,
            dtype=like.dtype,
            device=like.device,
            static=static,
        )

    @property
    def max_tokens(self) -> int:
        """Positions there is room for."""
        return self.keys.shape[3]

    @property
    def length(self) -> int:
        """Tokens held by the longest row."""
        return max(self.held)

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        """As `held`, on the device; made when somebody asks, as a step whose rows are equally long does not."""
        if self._lengths is None:
            self._lengths = torch.tensor(self.held, device=self.keys.device)
        return self._lengths

    @lengths.setter
    def lengths(self, lengths: Int[Tensor, " B"]) -> None:
        self._lengths = lengths

    @property
    def even(self) -> bool:
        """Whether all rows are equally long, and what is held may be read as a slice."""
        return not self.static and min(self.held) == max(self.held)

    def positions(self, T: int) -> Int[Tensor, "*B T"]:
        """Where T new tokens stand: one row for all where they are equally long, else a row for each."""
        if self.even:
            return torch.arange(self.length, self.length + T, device=self.keys.device)
        return self.lengths[:, None] + torch.arange(T, device=self.keys.device)

    def mask(self, T: int) -> Bool[Tensor, "*B T S"] | Float[Tensor, "*B T S"] | None:
        """For each of T new tokens, which of the S tokens that `update` returns it may attend to.

        The triangle is aligned with the last token; `is_causal` would align it with the first. None where no mask is
        needed: a single token may attend to all, and in an empty cache `is_causal` is right, at half the work. On a
        GPU a static cache gives what is added to the scores, 0 or -inf: attention would make it of a Boolean mask in
        every layer.
        """
        if self.even:
            if T == 1 or self.length == 0:
                return None
            S = self.length + T
            return torch.ones(T, S, dtype=torch.bool, device=self.keys.device).tril(S - T)
        seen = torch.arange(self._reach(T), device=self.keys.device)
        allowed = (seen <= self.positions(T)[:, :, None])[:, None]  # (B, 1, T, S)
        if self.static and self.keys.is_cuda:
            return torch.zeros_like(allowed, dtype=self.keys.dtype).masked_fill_(~allowed, -torch.inf)
        return allowed

    def update(
        self, layer: int, k: Float[Tensor, "B H T D"], v: Float[Tensor, "B H T D"]
    ) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D"]]:
        """Write the keys and values of T new tokens behind those held; return the S that the mask is about.

        Lengths stay as they are until `advance`, because every layer writes to the same positions. What is kept in
        fewer bits than it comes in is returned in as many.

        Raises:
            ValueError: There is no room for T more tokens.
        """
        T = k.shape[2]
        self.require_room(T)
        keys, values, end = self.keys[layer], self.values[layer], self._reach(T)
        wide = torch.promote_types(k.dtype, keys.dtype)
        k, v = keep_rows(k, keys.dtype), keep_rows(v, values.dtype)
        if self.even:
            keys[:, :, self.length : end] = k
            values[:, :, self.length : end] = v
        else:
            if layer == 0 or self._places is None:
                self._places = torch.arange(len(k), device=k.device)[:, None], self.positions(T)
            rows, at = self._places  # (B, 1) and (B, T), the same in every layer
            keys[rows, :, at] = k.transpose(1, 2)  # (B, T, H, D)
            values[rows, :, at] = v.transpose(1, 2)
        return read_rows(keys[:, :, :end], wide), read_rows(values[:, :, :end], wide)

    def remember(self, idx: Int[Tensor, "B T"], *, before: int) -> Int[Tensor, "B S"]:
        """Write the ids of T new tokens behind those held; return them after the ids `before` them, -1 for none.

        As with `update`, lengths stay as they are.

        Raises:
            ValueError: There is no room for T more tokens.
        """
        self.require_room(idx.shape[1])
        at = self.lengths[:, None] + torch.arange(-before, idx.shape[1], device=idx.device)
        self.ids.scatter_(1, at[:, before:], idx)
        return self.ids.gather(1, at.clamp(min=0)).where(at >= 0, -1)

    def require_room(self, T: int) -> None:
        """See whether T more tokens fit behind those held.

        Raises:
            ValueError: There is no room for them.
        """
        if self.length + T > self.max_tokens:
            raise ValueError(f"the cache has room for {self.max_tokens} tokens, {self.length + T} were given")

    def _reach(self, T: int) -> int:
        """Positions that are read (S)."""
        return self.max_tokens if self.static else self.length + T

    def advance(self, n_tokens: int) -> None:
        """Count n_tokens more as held by every row; called once per forward, after the last layer."""
        if self._lengths is not None:
            self._lengths += n_tokens
        self.held = [length + n_tokens for length in self.held]

    def truncate(self, length: int | Sequence[int]) -> None:
        """Forget everything from position `length` on; a length for every row, or one for all.

        A batch of prompts of different lengths is read so: padded at the end to the longest, then cut to each length.
        """
        lengths = [length] * len(self.held) if isinstance(length, int) else list(length)
        for held, wanted in zip(self.held, lengths, strict=True):
            if not 0 <= wanted <= held:
                raise ValueError(f"cannot truncate {held} tokens to {wanted}")
        self.held = lengths
        if self._lengths is not None:
            self._lengths.copy_(torch.tensor(lengths))

    def gather(self, rows: Sequence[int], *, max_tokens: int | None = None) -> "KVCache":
        """A cache with copies of these rows: so a prompt is read once and continued many times.

        Args:
            rows: Which, in the order of the new ones; any may come several times.
            max_tokens: Room of the new cache; None is that of this one.
        """
        n_layer, _, n_head, room, _ = self.keys.shape
        cache = KVCache(
            n_layer=n_layer,
            batch_size=len(rows),
            n_head=n_head,
            max_tokens=room if max_tokens is None else max_tokens,
            head_dim=self.head_dim,
            dtype=self.keys.dtype,
            device=self.keys.device,
            static=self.static,
        )
        index, length = torch.tensor(rows, device=self.keys.device), self.length
        cache.keys[:, :, :, :length] = self.keys[:, index, :, :length]
        cache.values[:, :, :, :length] = self.values[:, index, :, :length]
        cache.ids[:, :length] = self.ids[index, :length]
        cache.held = [self.held[row] for row in rows]
        return cache

    def view(self, rows: slice) -> "KVCache":
        """Adjacent rows, empty, without a copy: what is written to the view is written here too, but not counted."""
        cache = copy.copy(self)
        cache.keys, cache.values, cache.ids = self.keys[:, rows], self.values[:, rows], self.ids[rows]
        cache.hold([0] * len(cache.ids))
        return cache

    def hold(self, lengths: Sequence[int]) -> None:
        """Count so many tokens of each row as held, whatever was counted before."""
        self.held, self._lengths, self._places = list(lengths), None, None

    def fixed(self, *, rows: int, reach: int) -> "KVCache":
        """The first positions of the first rows as a static cache, without a copy and with lengths of its own."""
        cache = self.view(slice(0, rows))
        cache.keys, cache.values = cache.keys[:, :, :, :reach], cache.values[:, :, :, :reach]
        cache.ids = cache.ids[:, :reach]
        cache.static = True
        return cache


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros and not what memory holds: a masked position counts 0 times its value, which must not be NaN.

    On a CPU the system gives zeros only where somebody looks: a context that is not filled takes no memory. NumPy's
    zeros would come in pages of 2 MB, larger than what a text fills of a head.
    """
    size = math.prod(shape) * dtype.itemsize
    if torch.device(device).type != "cpu" or not size:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(shape)
