"""From a choice's events to the pieces of text and scores that a client gets.

A character waits until all its bytes are drawn, and text that could be the beginning of a stop string waits until it is
not. A token's score is sent with the piece that makes its text certain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from groundup.generation.requests import Event
from groundup.generation.scores import Score
from groundup.generation.stopping import StopStrings
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.streaming import Utf8Stream

LEAST = -9999.0
"""What stands for ln 0, which JSON cannot say."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A token as a client sees it."""

    text: str
    offset: int
    logprob: float | None
    top: dict[str, float] | None


@dataclass(slots=True)
class ShownDelta:
    """What became certain with some events."""

    text: str
    tokens: list[Shown]
    finish: str | None


class TokenNames:
    """How single tokens are written: their text, or their bytes where those are no text, or their number."""

    def __init__(self, tokenizer: Tokenizer, *, as_ids: bool) -> None:
        self._tokenizer, self._as_ids = tokenizer, as_ids

    def __call__(self, token: int) -> str:
        """One token."""
        if self._as_ids:
            return f"token_id:{token}"
        data = self._tokenizer.decode_bytes([token])
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def shown(self, token: int, offset: int, score: Score | None, n_top: int | None) -> Shown:
        """A token with the model's opinion of it: among the likeliest it is listed too, wherever it ranks."""
        if score is None:
            return Shown(self(token), offset, None, None)
        top = {self(other): max(value, LEAST) for other, value in reversed(score.top)} if n_top else {}
        top.setdefault(self(token), max(score.logprob, LEAST))
        return Shown(self(token), offset, max(score.logprob, LEAST), top)


@dataclass
class ChoiceText:
    """One continuation.

    Args:
        tokenizer: Of the model.
        names: How tokens are written.
        start: Characters of the prompt: offsets count from its beginning.
        stop: Strings that end the text and do not belong to it.
        n_top: As the request has it; None tells of no tokens.
    """

    tokenizer: Tokenizer
    names: TokenNames
    start: int
    stop: Sequence[str]
    n_top: int | None
    n_tokens: int = 0
    done: bool = False
    _length: int = 0
    """Characters sent."""
    _decoded: int = 0
    """Characters that the bytes so far make, sent or not."""
    _waiting: list[Shown] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with no text."""
        self._utf8, self._stops = Utf8Stream(), StopStrings(self.stop)

    def push(self, events: Sequence[Event]) -> ShownDelta:
        """Take the next events of this choice; what comes behind its end is passed over."""
        text, finish = "", None
        together = self.n_top is None and not self.stop  # else it matters which token brings what
        for told in (events,) if together else ([event] for event in events):
            tokens, end = [event.token for event in told if event.token is not None], told[-1].finish
            self.n_tokens += len(tokens)
            if end == "stop":  # a token that ends documents is no text
                tokens = tokens[:-1]
            text += self._text_of(told[-1], tokens)
            if self._stops.stopped:
                finish = "stop"
            elif end is not None:
                text += self._stops.push(self._utf8.finish()) + self._stops.finish()
                finish = "stop" if self._stops.stopped else end
            if finish is not None:
                break
        self._length += len(text)
        self.done = finish is not None
        return ShownDelta(text, self._certain(), finish)

    def _text_of(self, last: Event, tokens: Sequence[int]) -> str:
        data = self.tokenizer.decode_bytes(tokens)
        decoded = self._utf8.push(data)
        if self.n_top is not None:  # then it is one token at most
            # More characters than it has alone: first one that never ended, and is no part of this token.
            offset = self.start + self._decoded + max(0, len(decoded) - len(Utf8Stream().push(data)))
            self._waiting += [self.names.shown(token, offset, last.score, self.n_top) for token in tokens]
        self._decoded += len(decoded)
        return self._stops.push(decoded)

    def _certain(self) -> list[Shown]:
        """The tokens whose text is sent; those behind a stop string never are."""
        if not self._waiting:
            return []
        end = self.start + self._length
        cut = self.done and self._stops.stopped
        n = sum(t.offset < end or (self.done and not cut) for t in self._waiting)  # offsets never fall: a beginning
        certain, self._waiting = self._waiting[:n], self._waiting[n:]
        return certain


def logprobs_of(tokens: Sequence[Shown]) -> dict[str, Any]:
    """Four lists side by side, as the protocol has them."""
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [token.top for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }
