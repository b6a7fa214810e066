"""How text is drawn from a model."""

from dataclasses import dataclass

from groundup.config.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """One distribution to draw the next token from; applied in the order of the fields."""

    repetition_penalty: float = 1.0
    """Divide the logits of tokens already seen by this (Keskar et al. 2019); 1 turns it off."""
    temperature: float = 1.0
    """Divide the logits by this; 0 always takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this much probability (Holtzman et al. 2020)."""

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature must be 0 or more, got {self.temperature}")
        if self.top_k < 0:
            raise UsageError(f"top-k must be 0 (off) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p must be in (0, 1], got {self.top_p}")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UsageError(f"repetition-penalty must be above 0, got {self.repetition_penalty}")
