"""Requests to the engine, and the events that it returns."""

from dataclasses import dataclass, field
from typing import Literal

from groundup.config.generate import SamplingConfig
from groundup.generation.scores import Score

Finish = Literal["stop", "length"]
"""Why a text ended: it drew one of the request's stop ids, or as many tokens as the request allows."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt to continue, once or several times."""

    prompt: tuple[int, ...]
    """At least one id, and no more than the model's context holds. (A model that sees one token reads the last.)"""
    max_new_tokens: int
    """The most tokens to draw; 0 only reads the prompt, for its scores."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    n: int = 1
    """How many continuations to draw: choices 0 to n - 1."""
    seed: int = 0
    """A choice draws the same tokens for the same seed and place, whatever n is and whatever else is served."""
    stop_ids: frozenset[int] = frozenset()
    """Drawing one of these ends a text; the last event of the text holds it."""
    n_top: int | None = None
    """Tell the model's score of every drawn token, and so many of the likeliest; None tells none."""
    score_prompt: bool = False
    """Tell the model's scores of the prompt's tokens, too (with n_top, or 0, of the likeliest)."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What one slot did in a tick."""

    slot: int
    request: int
    choice: int
    start: int
    """The position of the first token that was read."""
    n_read: int
    """Tokens read: some of a prompt, one of a text that is being written, or none where the slot had to wait."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to one choice of a request; the last one of a choice has a `finish`."""

    request: int
    choice: int
    token: int | None = None
    """The token drawn; None where there was only a prompt to be read."""
    score: Score | None = None
    """What the model thinks of it, where the request asks."""
    finish: Finish | None = None
    prompt_scores: tuple[Score | None, ...] | None = None
    """Of the prompt's tokens, once per request, with its first event; None for the first one: nothing is before it."""
    n_reused: int = 0
    """Tokens of the prompt that were found in a slot and not read again; on a choice's first event."""
