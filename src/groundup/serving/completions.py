"""POST /v1/completions: OpenAI's protocol for models that continue text.

A prompt is text or ids; logprobs are the model's own, before temperature and filters, and of the drawn token the same
float as in its list of the likeliest. What a field asks that cannot be done is refused, never ignored.
"""

import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from groundup.config.errors import UserError
from groundup.config.generate import SamplingConfig
from groundup.generation.requests import Event, Request
from groundup.serving.bodies import MAX_CHOICES, MAX_PROMPTS, CompletionBody
from groundup.serving.errors import RequestError, invalid, shown
from groundup.serving.loop import EngineLoop, Moment
from groundup.serving.models import Served
from groundup.serving.texts import ChoiceText, Shown, TokenNames, logprobs_of

DEFAULT_MAX_TOKENS = 16
SILENCE = b": waiting\n\n"
"""A comment in a stream that has no event to send, so that no proxy in between takes it for dead."""
TEXT = "\0"
"""Stands for the text where the form of an event is made, and for nothing else: no name of a model has it."""
ChoiceDelta = tuple[int, str, list[Shown], str | None]
"""Index of a choice, text, tokens, and the reason why it ended."""

_json = json.JSONEncoder(ensure_ascii=False).encode


@dataclass
class Job:
    """One prompt of a request, with its choices."""

    request: Request
    prompt_text: str
    choices: list[ChoiceText]
    first_index: int
    """Of its choices, in the answer."""
    prompt_tokens: list[Shown] = field(default_factory=list)
    n_reused: int = 0
    """Tokens of the prompt that an earlier request had left in the cache."""


class Completion:
    """A request that was checked, and its answer, whole or in chunks.

    Args:
        served: The model.
        body: What was asked.

    Raises:
        RequestError: Something in it cannot be done.
    """

    def __init__(self, served: Served, body: CompletionBody) -> None:
        self.served, self.body = served, body
        self.id = f"cmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.echo = bool(body.echo)
        self.n_top = None if body.logprobs is None or body.logprobs is False else int(body.logprobs)
        self.seed = secrets.randbits(63) if body.seed is None else body.seed % 2**63
        self._refuse_what_cannot_be_done()
        self._names = TokenNames(served.loaded.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
        n = 1 if body.n is None else body.n
        prompts = self._prompts()
        if len(prompts) > MAX_PROMPTS or len(prompts) * n > MAX_CHOICES:
            message = f"at most {MAX_PROMPTS} prompts and {MAX_CHOICES} texts at once, got {len(prompts)} x {n}"
            raise RequestError(400, message, param="prompt", code="too_many")
        self.first_told: float | None = None
        """When the first event with something in it was, by `time.perf_counter`."""
        self._forms: dict[int, tuple[bytes, bytes]] = {}
        """By index of a choice: what is before and behind the text in an event of it."""
        self.jobs = [self._job(prompt, n, place) for place, prompt in enumerate(prompts)]

    async def whole(self, loop: EngineLoop) -> dict[str, Any]:
        """The answer in one piece."""
        texts: dict[int, str] = {}
        tokens: dict[int, list[Shown]] = {}
        finish: dict[int, str | None] = {}
        async with aclosing(self._moments(loop)) as moments:
            async for moment in moments:
                for index, text, shown, reason in self._pieces(moment):
                    texts[index] = texts.get(index, "") + text
                    tokens.setdefault(index, []).extend(shown)
                    finish[index] = reason or finish.get(index)
        choices = [self._choice(index, texts[index], tokens[index], finish[index]) for index in sorted(texts)]
        return self._object(choices) | {"usage": self.usage()}

    async def events(self, loop: EngineLoop, over: Callable[[], None]) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events of the same shape: those of a moment together, a comment in silence.

        The usage comes with the last, where it is asked for.

        Args:
            loop: Where the model is.
            over: Called when no more events come, however they ended.
        """
        try:
            async with aclosing(self._moments(loop)) as moments:
                async for moment in moments:
                    told = [self._event(piece) for piece in self._pieces(moment) if piece[1] or piece[2] or piece[3]]
                    if self._tells_usage and self._is_over:
                        told.append(sse(self._object([]) | {"usage": self.usage()}))
                    if told:
                        self.first_told = self.first_told or time.perf_counter()
                        yield b"".join(told)
                    elif not moment:
                        yield SILENCE
        finally:
            over()

    @property
    def _is_over(self) -> bool:
        return all(choice.done for job in self.jobs for choice in job.choices)

    @property
    def _tells_usage(self) -> bool:
        return self.body.stream_options is not None and bool(self.body.stream_options.include_usage)

    def _object(self, choices: Sequence[Any]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.served.id,
            "system_fingerprint": self.served.fingerprint,
            "choices": choices,
            "x_groundup": {"seed": self.seed},
        }

    def _choice(self, index: int, text: str, tokens: list[Shown], reason: str | None) -> dict[str, Any]:
        logprobs = None if self.n_top is None else logprobs_of(tokens)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}

    def _event(self, choice: ChoiceDelta) -> bytes:
        index, text, _, reason = choice
        if self.n_top is not None or reason is not None:
            return sse(self._object([self._choice(*choice)]))
        if index not in self._forms:  # all but the text is the same in most events
            begin, end = sse(self._object([self._choice(index, TEXT, [], None)])).split(_json(TEXT).encode())
            self._forms[index] = begin, end
        begin, end = self._forms[index]
        return b"".join((begin, _json(text).encode(), end))

    def usage(self) -> dict[str, Any]:
        """Tokens read and drawn so far."""
        prompt = sum(len(job.request.prompt) for job in self.jobs)
        drawn = sum(choice.n_tokens for job in self.jobs for choice in job.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": drawn,
            "total_tokens": prompt + drawn,
            "prompt_tokens_details": {"cached_tokens": sum(job.n_reused for job in self.jobs)},
        }

    def _moments(self, loop: EngineLoop) -> AsyncGenerator[Moment, None]:
        """Events of all prompts side by side; none where nothing came for long."""
        requests = [job.request for job in self.jobs]
        return loop.stream(self.served.engine, requests, lambda place, choice: self.jobs[place].choices[choice].done)

    def _pieces(self, moment: Moment) -> list[ChoiceDelta]:
        """What becomes certain with some events: for each choice one piece, of however many tokens."""
        news: dict[tuple[int, int], list[Event]] = {}
        for place, event in moment:
            news.setdefault((place, event.choice), []).append(event)
        return [piece for (place, choice), told in news.items() for piece in self._take(self.jobs[place], choice, told)]

    def _take(self, job: Job, number: int, events: Sequence[Event]) -> list[ChoiceDelta]:
        pieces: list[ChoiceDelta] = []
        choice, first = job.choices[number], events[0]
        if number == 0:
            job.n_reused = max(job.n_reused, *(event.n_reused for event in events))
        if self.echo and (first.prompt_scores is not None or self.n_top is None) and not job.prompt_tokens:
            job.prompt_tokens = self._shown_prompt(job, first)
            pieces += [(job.first_index + i, job.prompt_text, job.prompt_tokens, None) for i in range(len(job.choices))]
        if not choice.done:
            piece = choice.push(events)
            pieces.append((job.first_index + number, piece.text, piece.tokens, piece.finish))
        return pieces

    def _shown_prompt(self, job: Job, event: Event) -> list[Shown]:
        prompt = job.request.prompt
        scored = zip(prompt, event.prompt_scores or (None,) * len(prompt), strict=True)
        events = [Event(request=0, choice=0, token=token, score=score) for token, score in scored]
        end = Event(request=0, choice=0, finish="length")
        text = ChoiceText(self.served.loaded.tokenizer, self._names, 0, (), self.n_top or 0)
        return text.push([*events, end]).tokens

    def _job(self, prompt: str | list[int], n: int, place: int) -> Job:
        served, body = self.served, self.body
        tokenizer = served.loaded.tokenizer
        try:
            ids = served.prompt_ids(prompt) if isinstance(prompt, str) else prompt
            served.check_ids("prompt", ids)
            text = prompt if isinstance(prompt, str) else tokenizer.decode(prompt)
        except UserError as error:
            raise invalid("prompt", str(error)) from None
        sampling = self._sampling()
        max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        if not ids:
            raise invalid("prompt", "a prompt of ids needs at least one")
        scored = self.echo and (self.n_top is not None or max_tokens == 0)
        needed = len(ids) + max(max_tokens - 1, 0)  # the last token drawn is never read
        if served.context == 1:  # it reads one token at a time, whatever is before it
            needed = len(ids) if scored else 1
        if needed > served.context:
            raise RequestError(
                400,
                f"the model's context is {served.context} tokens; the prompt has {len(ids)} and max_tokens is"
                f" {max_tokens}: shorten one of them",
                param="max_tokens" if len(ids) <= served.context else "prompt",
                code="context_length_exceeded",
            )
        stop = () if body.stop is None else (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)
        eot = tokenizer.eot_id
        return Job(
            request=Request(
                prompt=tuple(ids),
                max_new_tokens=max_tokens,
                sampling=sampling,
                n=n,
                seed=(self.seed + place) % 2**63,  # equal prompts are to have texts of their own
                stop_ids=frozenset(() if eot is None or body.ignore_eos else (eot,)),
                n_top=self.n_top,
                score_prompt=scored,
            ),
            prompt_text=text,
            choices=[ChoiceText(tokenizer, self._names, len(text), stop, self.n_top) for _ in range(n)],
            first_index=place * n,
        )

    def _prompts(self) -> list[str | list[int]]:
        prompt = self.body.prompt
        if prompt is None or isinstance(prompt, str):
            return [prompt or ""]
        if not prompt:
            raise invalid("prompt", "prompt is an empty list: give a text or ids")
        if isinstance(prompt[0], int):
            return [[token for token in prompt if isinstance(token, int)]]
        return [part for part in prompt if not isinstance(part, int)]

    def _sampling(self) -> SamplingConfig:
        body = self.body
        bias = tuple((_id_of(key), value) for key, value in (body.logit_bias or {}).items())
        self.served.check_ids("logit_bias", [token for token, _ in bias])
        given = {
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "min_p": body.min_p,
            "repetition_penalty": body.repetition_penalty,
            "presence_penalty": body.presence_penalty,
            "frequency_penalty": body.frequency_penalty,
        }
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return SamplingConfig(logit_bias=bias, **values)

    def _refuse_what_cannot_be_done(self) -> None:
        body = self.body
        if body.suffix:
            raise RequestError(400, "suffix: the model writes forward only", param="suffix", code="unsupported")
        if body.best_of is not None and body.best_of != (body.n or 1):
            raise RequestError(400, "best_of must be n or absent", param="best_of", code="unsupported")
        if body.stream_options is not None and not body.stream:
            raise invalid("stream_options", "stream_options needs stream")
        if body.max_tokens == 0 and not self.echo:
            raise invalid("max_tokens", "max_tokens 0 only means something with echo")
        if "" in ((body.stop,) if isinstance(body.stop, str) else body.stop or ()):
            raise invalid("stop", "stop: a stop string has at least one character")


def _id_of(key: str) -> int:
    """The id that a key of logit_bias names; `int` would take " 1", "+1", "1_0" and digits of other scripts, too."""
    if not re.fullmatch("0|[1-9][0-9]{0,9}", key):
        raise invalid("logit_bias", f"logit_bias: keys are ids, got {shown(key)}")
    return int(key)


def sse(value: Any) -> bytes:
    """One event of a stream."""
    return f"data: {_json(value)}\n\n".encode()
