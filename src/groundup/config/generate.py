"""How text is drawn from a model."""

from dataclasses import dataclass

from groundup.config.errors import UsageError

LEAST_PENALTY, MOST_PENALTY = 0.01, 100.0
"""Of the repetition penalty, which divides logits."""
HOTTEST = 1e30
"""The highest temperature: all tokens are as likely as each other far below it, and a logit over it is a number."""
MOST_CHANGE = 1_000_000
"""Of a logit, by a bias or a penalty: logits go to about 100, and what is far above that becomes infinite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """One distribution to draw the next token from; applied in the order of the fields."""

    repetition_penalty: float = 1.0
    """Divide (below 0: multiply) the logits of tokens already seen by this (Keskar et al. 2019); 1 turns it off."""
    presence_penalty: float = 0.0
    """Subtract this from the logits of tokens already drawn, once; the prompt does not count; 0 turns it off."""
    frequency_penalty: float = 0.0
    """Subtract this from the logits of tokens already drawn, each time they were; the prompt does not count."""
    logit_bias: tuple[tuple[int, float], ...] = ()
    """Pairs of a token's id and what to add to its logit: -100 all but forbids a token, 100 all but forces it."""
    temperature: float = 1.0
    """Divide the logits by this; 0 always takes the likeliest token."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keep the smallest set of tokens with at least this much probability (Holtzman et al. 2020)."""
    min_p: float = 0.0
    """Keep tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024); 0 keeps all."""

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if not 0 <= self.temperature <= HOTTEST:
            wanted = f"at most {HOTTEST:g}" if self.temperature > HOTTEST else "0 or more"
            raise UsageError(f"temperature must be {wanted}, got {self.temperature}")
        if self.top_k < 0:
            raise UsageError(f"top-k must be 0 (off) or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p must be in (0, 1], got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min-p must be in [0, 1], got {self.min_p}")
        if not LEAST_PENALTY <= self.repetition_penalty <= MOST_PENALTY:
            raise UsageError(
                f"repetition-penalty must be {LEAST_PENALTY:g} to {MOST_PENALTY:g}, got {self.repetition_penalty}"
            )
        for name, value in (("presence", self.presence_penalty), ("frequency", self.frequency_penalty)):
            if not abs(value) <= MOST_CHANGE:
                raise UsageError(f"{name}-penalty must be within -{MOST_CHANGE:,} and {MOST_CHANGE:,}, got {value}")
        for token, bias in self.logit_bias:
            if token < 0 or not abs(bias) <= MOST_CHANGE:
                raise UsageError(
                    f"logit-bias takes pairs of an id and a number within -{MOST_CHANGE:,} and {MOST_CHANGE:,},"
                    f" got {token} {bias}"
                )
