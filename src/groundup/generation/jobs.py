"""What the engine keeps of a request and its choices, and how a choice goes back to where it stood before a tick."""

from collections import deque
from dataclasses import dataclass, field

import torch

from groundup.generation.lookup import PromptLookup
from groundup.generation.requests import Request
from groundup.generation.sampling import COLDEST, Row
from groundup.generation.scores import Score


@dataclass(eq=False)
class Job:
    """A request and how far it is."""

    id: int
    request: Request
    prompt: list[int]
    seeds: list[int]
    """One per choice."""
    waiting: deque[int]
    """Choices that have not begun."""
    running: list["Choice"] = field(default_factory=list)
    was_read: bool = False
    """Whether a choice has read the whole prompt."""
    reported: bool = False
    """Whether the scores of the prompt were reported, or were not asked for."""

    @property
    def may_start(self) -> bool:
        """Whether the next choice would find the prompt read, or is the first."""
        return all(choice.row.drawn or len(choice.unread) == 1 for choice in self.running)


@dataclass(eq=False)
class Choice:
    """One continuation of a request."""

    job: Job
    index: int
    row: Row
    slot: int
    unread: list[int]
    n_reused: int
    scores: list[Score | None] | None
    """Of the prompt's tokens so far, where this choice tells them."""
    last_read: int
    """The tick of its last chunk."""
    lookup: PromptLookup | None
    """Of a greedy text, whose next tokens may be guessed."""

    def mark(self) -> "Mark":
        """Where it stands before a tick."""
        return Mark(self, self.unread, None if self.scores is None else list(self.scores), self.last_read)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a choice stood."""

    choice: Choice
    unread: list[int]
    scores: list[Score | None] | None
    last_read: int

    def go_back(self) -> None:
        """Let the choice stand there again; its next random number is the one it was then."""
        choice, row = self.choice, self.choice.row
        choice.unread, choice.scores, choice.last_read = self.unread, self.scores, self.last_read
        row.generator.manual_seed(choice.job.seeds[choice.index])
        for _ in row.drawn if row.config.temperature >= COLDEST else ():
            torch.rand(1, generator=row.generator, dtype=torch.float64)
