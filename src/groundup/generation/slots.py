"""Rows of one KV cache, each with room for the whole context.

A slot keeps what it has read after its text has ended: a later text that begins alike goes on from there. What a slot
holds is known by the ids that were read into it; nothing else says how full it is.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.generation.graphs import DrawGraphs, StepGraphs
from groundup.generation.sampling import Drawn, Row, n_decisive, sample
from groundup.inference.screened import screened_head
from groundup.inference.weights import kernels_of
from groundup.kernels.compiled import CompiledKernels
from groundup.model.kv_cache import KVCache
from groundup.model.types import LanguageModel, device_of
from groundup.runtime.memory import free_memory

SHARE_OF_MEMORY = 4
"""Slots take at most this part (a fourth) of what is free."""


class Slots:
    """The slots of one model.

    Args:
        model: Its weights stay as they are while the slots are in use.
        n_slots: How many texts can be read and written side by side (S).
    """

    def __init__(self, model: LanguageModel, n_slots: int) -> None:
        self.model, self.room = model, model.config.block_size
        self._device, kernels = device_of(model), kernels_of(model)
        self._choose = kernels.draw if isinstance(kernels, CompiledKernels) else None
        self._head = screened_head(model)
        self._cache = model.new_cache(n_slots, self.room)
        self._viewed, self._last_view = (0, n_slots), self._cache.view(slice(0, n_slots))
        captured = self._device.type == "cuda" and len(self._cache.keys) > 0  # a model without layers needs no graph
        self._graphs = StepGraphs(model, self._cache) if captured else None
        self._draws = DrawGraphs(model, n_slots) if captured else None
        self.held: list[list[int]] = [[] for _ in range(n_slots)]
        """The ids read into each slot."""
        self.free = list(range(n_slots))
        """Slots without a text, the one that has been free longest first."""

    @property
    def captured(self) -> bool:
        """Whether steps are recorded as graphs."""
        return self._graphs is not None

    def take(self, wanted: Sequence[int], *, whole: int) -> int:
        """Give a free slot that holds as much of the beginning of `wanted` as any slot does, and nothing else.

        What another slot holds is copied. Of the free slots beside those in use, the one that has been free longest
        loses what it held.

        Args:
            wanted: Ids of which any number may be found.
            whole: Only multiples of this many are shared, so that the rest is read in the same pieces either way.
        """
        shared = [_common(held, wanted) // whole * whole for held in self.held]
        donor = max(range(len(shared)), key=shared.__getitem__)
        slot = min(self.free, key=self._distance)
        if slot != donor and shared[donor]:
            self.copy(donor, slot, shared[donor])
        self.free.remove(slot)
        del self.held[slot][shared[donor] :]
        return slot

    def give_back(self, slot: int) -> None:
        """A text has ended; what was read stays until another text needs the room."""
        self.free.append(slot)

    def copy(self, source: int, target: int, n_tokens: int) -> None:
        """Let a slot hold the first tokens of another."""
        self._cache.keys[:, target, :, :n_tokens] = self._cache.keys[:, source, :, :n_tokens]
        self._cache.values[:, target, :, :n_tokens] = self._cache.values[:, source, :, :n_tokens]
        self._cache.ids[target, :n_tokens] = self._cache.ids[source, :n_tokens]
        self.held[target] = self.held[source][:n_tokens]

    def read(self, slot: int, ids: Sequence[int]) -> Float[Tensor, "T C"]:
        """Read some ids behind what a slot holds; returns what the head reads at each."""
        idx = torch.tensor([ids], device=self._device)
        hidden = self.model.hidden(idx, cache=self._view(slot, slot + 1))[0]
        self.held[slot] += ids
        return hidden

    def read_one_each(self, slots: Sequence[int], ids: Sequence[int]) -> Float[Tensor, "B C"]:
        """Read one id into each of some slots, together; returns what the head reads.

        All slots between the first and the last take part, so that nothing is copied (on a GPU those of a graph:
        `StepGraphs`). Those that were not asked for read an id behind what they hold, which is not counted as held.
        """
        first, end = min(slots), max(slots) + 1
        if self._graphs:
            first, end = 0, self._graphs.rows(end)
        fed = dict(zip(slots, ids, strict=True))
        for slot in range(first, end):
            if slot not in fed:
                del self.held[slot][self.room - 1 :]  # a place for the id that does not count
        all_ids = [fed.get(slot, 0) for slot in range(first, end)]
        if self._graphs:
            hidden = self._graphs.read_one_each(all_ids, [len(held) for held in self.held[:end]])
        else:
            idx = torch.tensor(all_ids, device=self._device)[:, None]
            hidden = self.model.hidden(idx, cache=self._view(first, end))[:, 0]
        for slot, token in fed.items():
            self.held[slot].append(token)
        if len(fed) == len(hidden) and list(slots) == sorted(slots):
            return hidden
        return hidden[[slot - first for slot in slots]]

    def draw(self, hidden: Float[Tensor, "B C"], rows: Sequence[Row]) -> list[Drawn]:
        """The next token of each row, from what the head reads: `sample`, recorded where that can be."""
        drawn = self._draws.draw(hidden, rows) if self._draws else None
        return drawn or sample(self._logits(hidden, rows), rows, by=self._choose)

    def cut(self, lengths: Sequence[int]) -> None:
        """Let each slot hold so many of its tokens at most, and nothing behind them: not even what is no number."""
        for slot, (held, length) in enumerate(zip(self.held, lengths, strict=True)):
            del held[length:]
            self._cache.keys[:, slot, :, len(held) :] = 0
            self._cache.values[:, slot, :, len(held) :] = 0

    def _logits(self, hidden: Float[Tensor, "B C"], rows: Sequence[Row]) -> Float[Tensor, "B V"]:
        """The head's, or those alone that can be drawn, where they can be told from the others."""
        k = n_decisive(rows)
        largest = self._head.largest(hidden, k) if self._head and k else None
        return self.model.logits(hidden) if largest is None else largest

    def _view(self, first: int, end: int) -> KVCache:
        """Some rows of the cache; the last ones are kept, because most steps are for the rows of the step before."""
        if self._viewed != (first, end):
            self._viewed, self._last_view = (first, end), self._cache.view(slice(first, end))
        self._last_view.hold([len(held) for held in self.held[first:end]])
        return self._last_view

    def _distance(self, slot: int) -> int:
        """How far a slot is from those in use: texts that are read together should be side by side."""
        used = [s for s in range(len(self.held)) if s not in self.free]
        return min((abs(slot - s) for s in used), default=0)


def count_slots(model: LanguageModel, wanted: int) -> int:
    """How many slots to have: as many as wanted, or as a part of the free memory holds, and one at least."""
    cache = model.new_cache(1, model.config.block_size)
    size = cache.keys.nbytes + cache.values.nbytes
    return max(1, min(wanted, free_memory(device_of(model)) // SHARE_OF_MEMORY // max(1, size)))


def _common(held: Sequence[int], wanted: Sequence[int]) -> int:
    """Length of the common beginning."""
    n = min(len(held), len(wanted))
    return next((k for k in range(n) if held[k] != wanted[k]), n)
