"""Decoding steps of fixed shape: on a GPU each is captured once as a CUDA graph, and then started by one call.

A token of a small model is some two hundred kernels of a few microseconds. Python needs longer to start them than a GPU
to run them, so the same kernels, recorded once and started together, take a fraction of the time.

A graph computes what was recorded, on the addresses that were recorded. So it has a fixed number of rows, the first of
the cache, and reads a fixed number of positions under a mask; ids and lengths are inputs. Rows and positions are
rounded up to powers of two: a text of a thousand tokens meets five graphs.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.model.kv_cache import KVCache
from groundup.model.types import LanguageModel

MIN_REACH = 64
"""The fewest positions that a graph reads, where there is room for so many."""
WARMUPS = 2
"""Runs before a step is recorded: libraries choose kernels and allocate workspaces then."""


class StepGraphs:
    """The steps of one model on one cache.

    Args:
        model: Its weights may change in place, and must stay where they are.
        cache: Has no lengths of its own; each step is told those of its rows.
    """

    def __init__(self, model: LanguageModel, cache: KVCache) -> None:
        self._model, self._cache = model, cache
        self._steps: dict[tuple[int, int], _Step] = {}

    def rows(self, n: int) -> int:
        """The rows that a step for the first n rows has."""
        return _round_up(n, most=self._cache.keys.shape[1])

    def read_one_each(self, ids: Sequence[int], lengths: Sequence[int]) -> Float[Tensor, "B C"]:
        """Read one id into each of the first rows.

        Args:
            ids: Of as many rows as `rows` says.
            lengths: What each of them holds.

        Returns:
            What the head reads; the next step overwrites it.
        """
        reach = _round_up(max(*lengths, MIN_REACH - 1) + 1, most=self._cache.max_tokens)
        key = len(ids), reach
        if key not in self._steps:
            self._steps[key] = _Step(self._model, self._cache.fixed(rows=len(ids), reach=reach))
        return self._steps[key](ids, lengths)


class _Step:
    """One token for each row of a cache; recorded at the first call."""

    def __init__(self, model: LanguageModel, cache: KVCache) -> None:
        self._model, self._cache = model, cache
        self._inputs = torch.zeros(2, len(cache.held), dtype=torch.long, device=cache.keys.device)
        cache.lengths = self._inputs[1]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._hidden: Tensor | None = None

    def __call__(self, ids: Sequence[int], lengths: Sequence[int]) -> Float[Tensor, "B C"]:
        self._set(ids, lengths)
        if self._cache.keys.device.type != "cuda":
            return self._run()
        if self._graph is None or self._hidden is None:
            self._record(ids, lengths)
        assert self._graph is not None
        assert self._hidden is not None
        self._graph.replay()
        return self._hidden

    def _set(self, ids: Sequence[int], lengths: Sequence[int]) -> None:
        self._inputs.copy_(torch.tensor([ids, lengths]))
        self._cache.held = list(lengths)

    def _run(self) -> Float[Tensor, "B C"]:
        return self._model.hidden(self._inputs[0, :, None], cache=self._cache)[:, 0]

    def _record(self, ids: Sequence[int], lengths: Sequence[int]) -> None:
        """Run the step a few times, which writes the same keys and values each time, then record it."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARMUPS):
                self._run()
                self._set(ids, lengths)
        here.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # a server's other threads go on
            self._hidden = self._run()


def _round_up(n: int, *, most: int) -> int:
    """The next power of two, or `most`."""
    return min(most, 1 << (n - 1).bit_length())
