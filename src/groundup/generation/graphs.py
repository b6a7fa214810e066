"""Decoding steps of fixed shape: on a GPU each is captured once as a CUDA graph, and then started by one call.

A token of a small model is some two hundred kernels of a few microseconds. Python needs longer to start them than a GPU
to run them, so the same kernels, recorded once and started together, take a fraction of the time.

A graph computes what was recorded, on the addresses that were recorded. So it has a fixed number of rows, the first of
the cache, and reads a fixed number of positions under a mask; ids and lengths are inputs. Rows and positions are
rounded up to powers of two: a text of a thousand tokens meets five graphs. The draw behind a step, forty kernels more,
is recorded for each setting of the sampler that depends on nothing but logits and chance.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from groundup.config.generate import SamplingConfig
from groundup.generation.sampling import COLDEST, Drawn, Row, choose, is_plain, read_drawn, uniform_numbers
from groundup.model.kv_cache import KVCache
from groundup.model.types import LanguageModel, wide

MIN_REACH = 64
"""The fewest positions that a graph reads, where there is room for so many."""
MAX_DRAWS = 16
"""Settings whose draws are kept recorded; a new one takes the place of the oldest."""
WARMUPS = 2
"""Runs before a step is recorded: libraries choose kernels and allocate workspaces then."""


class StepGraphs:
    """The steps of one model on one cache.

    Args:
        model: Its weights may change in place, and must stay where they are.
        cache: Has no lengths of its own; each step is given those of its rows.
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


class DrawGraphs:
    """The head and the draw behind a step, for rows under the same settings.

    Args:
        model: As for `StepGraphs`.
        n_slots: The most rows.
    """

    def __init__(self, model: LanguageModel, n_slots: int) -> None:
        self._model, self._n_slots = model, n_slots
        self._draws: dict[tuple[int, SamplingConfig], _Draw] = {}

    def draw(self, hidden: Float[Tensor, "B C"], rows: Sequence[Row]) -> list[Drawn] | None:
        """The next token of every row; None where they differ in their settings, look at the past or ask for scores.

        Raises:
            NoNumbersError: The logits are not numbers.
        """
        config = rows[0].config
        if not all(row.config == config and is_plain(row) for row in rows):
            return None
        key = _round_up(len(rows), most=self._n_slots), config
        if key not in self._draws:
            if len(self._draws) == MAX_DRAWS:
                del self._draws[next(iter(self._draws))]
            self._draws[key] = _Draw(self._model, config, hidden.new_zeros(key[0], hidden.shape[1]))
        return read_drawn(self._draws[key](hidden, uniform_numbers(rows, hidden.device)))


class _Recording:
    """A computation on tensors that stay where they are: recorded at the first call on a GPU, and then replayed."""

    def __init__(self, run: Callable[[], Tensor], device: torch.device) -> None:
        self._run, self._device = run, device
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def __call__(self, fill: Callable[[], None]) -> Tensor:
        """What comes of the inputs that `fill` writes."""
        fill()
        if self._device.type != "cuda":
            return self._run()
        if self._recorded is None:
            self._recorded = self._record(fill)
        graph, output = self._recorded
        graph.replay()
        return output

    def _record(self, fill: Callable[[], None]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Run a few times, which does the same each time, then record: the graph, and where its output will be."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(WARMUPS):
                self._run()
                fill()
        here.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # a server's other threads go on
            output = self._run()
        return graph, output


class _Step:
    """One token for each row of a cache."""

    def __init__(self, model: LanguageModel, cache: KVCache) -> None:
        self._model, self._cache = model, cache
        self._inputs = torch.zeros(2, len(cache.held), dtype=torch.long, device=cache.keys.device)
        cache.lengths = self._inputs[1]
        self._recording = _Recording(self._run, cache.keys.device)

    def __call__(self, ids: Sequence[int], lengths: Sequence[int]) -> Float[Tensor, "B C"]:
        return self._recording(lambda: self._fill(ids, lengths))

    def _fill(self, ids: Sequence[int], lengths: Sequence[int]) -> None:
        self._inputs.copy_(torch.tensor([ids, lengths]), non_blocking=True)
        self._cache.held = list(lengths)

    def _run(self) -> Float[Tensor, "B C"]:
        return self._model.hidden(self._inputs[0, :, None], cache=self._cache)[:, 0]


class _Draw:
    """One id for each row of what the head reads."""

    def __init__(self, model: LanguageModel, config: SamplingConfig, hidden: Float[Tensor, "B C"]) -> None:
        self._model, self._config, self._hidden = model, config, hidden
        # Rows without a request draw, too.
        half = torch.full((len(hidden), 1), 0.5, dtype=torch.float64, device=hidden.device)
        self._uniform = None if config.temperature < COLDEST else half
        self._recording = _Recording(self._run, hidden.device)

    def __call__(self, hidden: Float[Tensor, "B C"], uniform: Float[Tensor, "B 1"] | None) -> Int[Tensor, " B"]:
        def fill() -> None:
            self._hidden[: len(hidden)] = hidden
            if self._uniform is not None and uniform is not None:
                self._uniform[: len(uniform)] = uniform

        return self._recording(fill)[: len(hidden)]

    def _run(self) -> Int[Tensor, " B"]:
        return choose(wide(self._model.logits(self._hidden)), self._config, self._uniform)


def _round_up(n: int, *, most: int) -> int:
    """The next power of two, or `most`."""
    return min(most, 1 << (n - 1).bit_length())
