"""Text in, text out: a tokenizer around the engine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig
from groundup.formats.decode import line_ends
from groundup.generation.engine import Engine
from groundup.generation.requests import Event, Finish, Request
from groundup.generation.slots import count_slots
from groundup.generation.stopping import StopStrings
from groundup.model.types import LanguageModel
from groundup.tokenizer.base import Tokenizer
from groundup.tokenizer.streaming import Utf8Stream

MAX_SLOTS = 16
"""The most texts of different prompts that are written side by side."""
CHUNK = 128
"""Tokens of a prompt that are read in one tick while other texts are written."""


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """One prompt to continue, once or several times, until a stop string or the end of a document."""

    prompt: tuple[int, ...]
    """Its ids: see `prompt_ids`."""
    max_new_tokens: int
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Strings that end a text and do not belong to it."""
    n_top: int | None = None
    """As in `Request`."""


class TextDelta(NamedTuple):
    """What one more token did to a text."""

    request: int
    """Place of the request among those that are run."""
    choice: int
    text: str
    """What is now certain to belong to the text, and was not before; often empty."""
    event: Event
    """The token, and what the engine tells of it."""
    finish: Finish | None
    """Set in the last piece of a choice; `stop` for stop strings, too."""


class TextCompletion(NamedTuple):
    """A request that is over."""

    request: int
    """Its place among those that are run."""
    texts: list[str]
    """One per choice."""
    finishes: list[Finish]
    """Why each ended."""


class Continuation:
    """One text: from its ids to what is ready to be shown.

    A character waits until all its bytes are drawn, and text that could be the beginning of a stop string waits until
    it is not.

    Args:
        tokenizer: Its `eot_id` ends the text, and is no part of it.
        stop: Strings that do the same.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._utf8, self._stops = Utf8Stream(), StopStrings(stop)
        self.done = False
        """Whether the text has ended."""

    def push(self, token: int) -> str:
        """Take the next id; returns the text that has become ready."""
        if token == self._tokenizer.eot_id:
            return self.finish()
        text = self._stops.push(self._utf8.push(self._tokenizer.decode_bytes([token])))
        self.done = self._stops.stopped
        return text

    def finish(self) -> str:
        """No more ids come; returns what was held back."""
        if self.done:
            return ""
        self.done = True
        return self._stops.push(self._utf8.finish()) + self._stops.finish()


def prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The ids that a prompt stands for, its line ends as those of all text that is learned from.

    Raises:
        UserError: The tokenizer does not know a symbol, or the prompt is empty and nothing can stand for it.
    """
    if prompt:
        return tokenizer.encode(line_ends(prompt))
    if tokenizer.eot_id is not None:
        return [tokenizer.eot_id]
    try:
        return tokenizer.encode("\n")
    except UserError:
        raise UserError(
            "the prompt is empty, and this model knows neither a separator nor a newline to start after: give a prompt"
        ) from None


class TextGenerator:
    """Draws continuations of prompts.

    A continuation ends after max_new_tokens, before the first stop string, or where the model draws `eot_id`, the
    end of a document. It is the text of its ids, without the prompt.

    Args:
        model: In evaluation mode.
        tokenizer: The one it was trained with.
        before_ticks: Called before each of the engine's.
    """

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, *, before_ticks: Callable[[], None] = lambda: None
    ) -> None:
        self.model, self.tokenizer, self._before_ticks = model, tokenizer, before_ticks

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int,
        sampling: SamplingConfig | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """Continue a prompt piece by piece; the pieces joined are what `generate` returns.

        Args:
            prompt: What to continue, text or ids. Empty starts a new document; where the tokenizer has no `eot_id`, a
                new line.
            max_new_tokens: The most tokens to draw.
            sampling: How to draw them; as the model says, by default.
            seed: The same seed draws the same text.
            stop: Strings that end the text and do not belong to it.

        Returns:
            Pieces, none of them empty; `Continuation` says what they wait for.

        Raises:
            UserError: The prompt has symbols the tokenizer does not know, or is too long for the model. Raised here,
                before the first piece is asked for.
        """
        pieces = self.run([self._request(prompt, max_new_tokens, sampling, 1, seed, stop)])
        return (piece.text for piece in pieces if piece.text)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int,
        sampling: SamplingConfig | None = None,
        num_samples: int = 1,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """Continue a prompt num_samples times at once; the other arguments and the errors are `stream`'s.

        Returns:
            Continuations. The i-th depends on the seed and i, not on how many there are; `stream` gives the first.
        """
        (completion,) = self.complete([self._request(prompt, max_new_tokens, sampling, num_samples, seed, stop)])
        return completion.texts

    def complete(self, requests: Sequence[TextRequest]) -> Iterator[TextCompletion]:
        """Continue many prompts side by side; tells each when it is over, in whatever order that is.

        Raises:
            UserError: As `run`.
        """
        return _complete(self.run(requests), [request.n for request in requests])

    def run(self, requests: Sequence[TextRequest]) -> Iterator[TextDelta]:
        """Continue many prompts side by side; pieces of different texts come mixed, those of one text in order.

        Raises:
            UserError: A request cannot be served. Raised here, before the first piece is asked for.
        """
        lone = len(requests) == 1
        engine = Engine(
            self.model,
            n_slots=count_slots(self.model, requests[0].n if lone else MAX_SLOTS),
            chunk=self.model.config.block_size if lone else CHUNK,  # one prompt alone keeps no other waiting
        )
        places: dict[int, int] = {}
        texts: dict[tuple[int, int], Continuation] = {}
        for place, request in enumerate(requests):
            choices = [Continuation(self.tokenizer, request.stop) for _ in range(request.n)]
            id_ = engine.submit(
                Request(
                    prompt=request.prompt,
                    max_new_tokens=request.max_new_tokens,
                    sampling=request.sampling,
                    n=request.n,
                    seed=request.seed,
                    stop_ids=frozenset(() if self.tokenizer.eot_id is None else (self.tokenizer.eot_id,)),
                    n_top=request.n_top,
                )
            )
            places[id_] = place
            texts |= {(id_, choice): text for choice, text in enumerate(choices)}
        return self._pieces(engine, places, texts)

    def _pieces(
        self, engine: Engine, places: dict[int, int], texts: dict[tuple[int, int], Continuation]
    ) -> Iterator[TextDelta]:
        while engine.busy:
            self._before_ticks()
            for event in engine.tick():
                text = texts[event.request, event.choice]
                if text.done:  # several tokens came with one tick, and a stop string ended the text in the middle
                    continue
                ready = text.push(event.token) if event.token is not None else ""
                finish = event.finish
                if text.done and finish is None:
                    finish = "stop"
                    engine.cancel(event.request, event.choice)
                elif finish:
                    ready += text.finish()
                yield TextDelta(places[event.request], event.choice, ready, event, finish)

    def _request(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int,
        sampling: SamplingConfig | None,
        n: int,
        seed: int,
        stop: Sequence[str],
    ) -> TextRequest:
        return TextRequest(
            prompt=tuple(prompt_ids(self.tokenizer, prompt) if isinstance(prompt, str) else prompt),
            max_new_tokens=max_new_tokens,
            sampling=sampling or SamplingConfig(),
            n=n,
            seed=seed,
            stop=tuple(stop),
        )


def _complete(pieces: Iterator[TextDelta], n_choices: Sequence[int]) -> Iterator[TextCompletion]:
    texts = [[""] * n for n in n_choices]
    finishes: list[dict[int, Finish]] = [{} for _ in n_choices]
    for piece in pieces:
        texts[piece.request][piece.choice] += piece.text
        if piece.finish:
            ended = finishes[piece.request]
            ended[piece.choice] = piece.finish
            if len(ended) == n_choices[piece.request]:
                yield TextCompletion(piece.request, texts[piece.request], [ended[k] for k in sorted(ended)])
