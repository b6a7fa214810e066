"""Numbers for Prometheus: what waits, what was written, how long it took."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from groundup.serving.loop import EngineLoop

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meters:
    """The meters of one server, in a registry of their own.

    Args:
        loop: Asked for its load at each reading.
    """

    def __init__(self, loop: EngineLoop) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("groundup_requests", "Answers by status.", ["status"], registry=self._registry)
        self.prompt_tokens = Counter("groundup_prompt_tokens", "Tokens of prompts.", registry=self._registry)
        self.cached_tokens = Counter(
            "groundup_cached_tokens", "Tokens of prompts that were found in the cache.", registry=self._registry
        )
        self.drawn_tokens = Counter("groundup_drawn_tokens", "Tokens drawn.", registry=self._registry)
        self.first_token = Histogram(
            "groundup_first_token_seconds", "Until the first token.", buckets=SECONDS, registry=self._registry
        )
        load = Gauge("groundup_load", "Texts that wait or are written.", registry=self._registry)
        load.set_function(lambda: loop.load)

    def text(self) -> bytes:
        """All of them, in Prometheus' form."""
        return generate_latest(self._registry)
