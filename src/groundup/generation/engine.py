"""Many texts, one model: ids in, ids out. The engine knows nothing of text, time, threads or networks.

    engine = Engine(model, n_slots=8)
    first = engine.submit(Request(prompt=(464, 3290), max_new_tokens=20))
    other = engine.submit(Request(prompt=(40, 716), max_new_tokens=5, n=4, n_top=3))
    while engine.busy:
        for event in engine.tick():
            print(event.request, event.choice, event.token, event.finish)

`submit` and `cancel` may be called between any two ticks; a server has one thread that empties its inbox into them,
calls `tick`, hands the events out, and sleeps on the inbox when the engine is not `busy`.

A tick is, in this order:

1. Free slots are given to waiting requests in turn: a request with many choices gets one slot a turn.
2. All texts with one token to read read it together, whatever their lengths.
3. One chunk of one prompt is read, of the text that has waited longest for that; a long prompt delays others no more.
4. The next token of every text that has read everything is drawn, and becomes an event.

A greedy text that is alone in step 2 reads guesses of its next tokens with it (`PromptLookup`). All that were right
become events of one tick, and the others are forgotten: the tokens are the same as without.

A slot has room for the whole context, so no text is ever thrown out to make room. A text that has filled its context
reads the last half of `block_size` tokens again, at positions 0, 1, ..., as one more prompt: keys of deeper layers
depend on tokens that have left the context; no shift of positions could make them what the model would compute.

A prompt is read in chunks that end at multiples of the chunk size, and what is found of it in a slot is used in whole
chunks: the pieces that are read are the same ones with and without. Other choices of the same request find all of it.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from groundup.config.errors import UsageError
from groundup.config.generate import SamplingConfig
from groundup.generation.jobs import Choice, Job
from groundup.generation.lookup import PromptLookup
from groundup.generation.requests import Event, Finish, Lane, Request
from groundup.generation.sampling import Drawn, NoNumbersError, Row, check_bias, depends_on_logits_alone
from groundup.generation.scores import Score, read_scores, score
from groundup.generation.slots import Slots, count_slots
from groundup.model.types import LanguageModel, wide


class Engine:
    """Reads prompts and draws tokens for many requests, a tick at a time.

    A choice draws the tokens that it draws alone, up to rounding: products of differently sized batches differ in
    their last bits.

    Args:
        model: In evaluation mode; its weights stay as they are.
        n_slots: The most texts side by side.
        chunk: The most tokens of a prompt that are read in one tick.
        speculate: Let greedy texts guess.
    """

    def __init__(self, model: LanguageModel, *, n_slots: int = 8, chunk: int = 128, speculate: bool = True) -> None:
        if n_slots < 1 or chunk < 1:
            raise ValueError(f"an engine needs slots and a chunk, got {n_slots} and {chunk}")
        if getattr(model, "training", False) and getattr(model.config, "dropout", 0):
            raise ValueError("the model is in training mode and would drop activations: call its eval() first")
        self.model, self.n_slots, self.chunk = model, n_slots, chunk
        self._block_size = model.config.block_size
        self._slots = Slots(model, n_slots)
        self._speculate = speculate and not self._slots.captured  # a step of another shape is not recorded
        self._jobs: dict[int, Job] = {}
        self._turn: deque[Job] = deque()
        """Jobs with choices that have not begun; the first is next."""
        self._running: list[Choice] = []
        self._n_jobs = self._n_ticks = 0
        self.lanes: list[Lane] = []
        """What the slots in use did in the last tick."""

    @property
    def busy(self) -> bool:
        """Whether a tick would do something."""
        return bool(self._jobs)

    @property
    def n_waiting(self) -> int:
        """Choices that have no slot yet."""
        return sum(len(job.waiting) for job in self._turn)

    def submit(self, request: Request) -> int:
        """Take a request; returns the number that its events will carry.

        Raises:
            UsageError: The prompt is empty or does not fit into the context (without its beginning it would be another
                question), or an id is not the model's.
        """
        prompt, vocab_size = request.prompt, self.model.config.vocab_size
        if request.n < 1 or request.max_new_tokens < (0 if request.score_prompt else 1):
            raise ValueError(f"nothing to do: {request.n} choices of {request.max_new_tokens} tokens")
        if not prompt:
            raise UsageError("the prompt is empty: give at least one token")
        if len(prompt) > self._block_size and (self._block_size > 1 or request.score_prompt):
            raise UsageError(
                f"the prompt has {len(prompt)} tokens, the model's context is {self._block_size}: shorten it"
            )
        if not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise UsageError(f"the prompt has an id outside of the model's 0 to {vocab_size - 1}")
        check_bias(request.sampling, vocab_size)
        generator = torch.Generator().manual_seed(request.seed)
        self._n_jobs += 1
        job = Job(
            id=self._n_jobs,
            request=request,
            prompt=list(prompt[-self._block_size :]),
            seeds=torch.randint(2**63 - 1, (request.n,), generator=generator).tolist(),
            waiting=deque(range(request.n)),
            reported=not request.score_prompt,
        )
        self._jobs[job.id] = job
        self._turn.append(job)
        return job.id

    def cancel(self, request: int, choice: int | None = None) -> None:
        """End a request, or one choice of it, without a further event; its slots are free at once.

        What has ended already, or never was, is left as it is.
        """
        job = self._jobs.get(request)
        if job is None:
            return
        for index in [*job.waiting] if choice is None else [choice]:
            if index in job.waiting:
                job.waiting.remove(index)
        for running in [*job.running]:
            if choice in (None, running.index):
                self._release(running)
        self._forget_if_over(job)

    @torch.inference_mode()
    def tick(self, only: int | None = None) -> list[Event]:
        """Do one round of work, and return its events.

        A tick that raises has returned no event and drawn no token: the request that is to blame can be found by ticks
        of one request each, and the others go on as if it had not happened.

        Args:
            only: The number of a request: the others wait.

        Raises:
            NoNumbersError: The model's logits are not numbers.
        """
        self._n_ticks += 1
        self._admit()
        running = [choice for choice in self._running if only in (None, choice.job.id)]
        lengths = [len(held) for held in self._slots.held]
        marks = [choice.mark() for choice in running]
        try:
            return self._round(running, lengths)
        except Exception:
            self._slots.cut(lengths)
            for mark in marks:
                mark.go_back()
            raise

    def _round(self, running: Sequence[Choice], lengths: Sequence[int]) -> list[Event]:
        together = sorted((c for c in running if len(c.unread) == 1), key=lambda c: c.slot)
        guess = self._guess(together[0]) if len(together) == 1 else []
        ready, hidden = [] if guess else list(together), []
        if ready:
            hidden.append(self._slots.read_one_each([c.slot for c in together], [c.unread[0] for c in together]))
        # After the others: rows between them need a free place at their end, and this may fill the last one.
        if reader := min((c for c in running if len(c.unread) > 1), key=lambda c: c.last_read, default=None):
            last = self._read_chunk(reader)
            if not reader.unread:
                ready.append(reader)
                hidden.append(last)
        drawing = [place for place, c in enumerate(ready) if c.job.request.max_new_tokens]
        drawn: dict[int, Drawn] = {}
        if drawing:
            read = torch.cat(hidden) if len(hidden) > 1 else hidden[0]
            read = read[drawing] if len(drawing) < len(ready) else read
            drawn = dict(zip(drawing, self._slots.draw(read, [ready[place].row for place in drawing]), strict=True))
        told = self._read_guess(together[0], guess) if guess else []
        self.lanes = [
            Lane(c.slot, c.job.id, c.index, lengths[c.slot], len(self._slots.held[c.slot]) - lengths[c.slot])
            for c in running
        ]
        return told + [self._take(choice, drawn.get(place)) for place, choice in enumerate(ready)]

    def _admit(self) -> None:
        """Give free slots to those whose turn it is."""
        while self._slots.free and (job := next((job for job in self._turn if job.may_start), None)):
            self._turn.remove(job)
            self._start(job)
            if job.waiting:
                self._turn.append(job)

    def _start(self, job: Job) -> None:
        request, index = job.request, job.waiting.popleft()
        tells = not job.reported and all(choice.scores is None for choice in job.running)
        # One token is always left to read, for the logits after it; and all where each has a score to tell.
        wanted = [] if tells else job.prompt[:-1]
        slot = self._slots.take(wanted, whole=1 if job.was_read else self.chunk)
        n_reused = len(self._slots.held[slot])
        guesses = self._speculate and depends_on_logits_alone(request.sampling)
        choice = Choice(
            job=job,
            index=index,
            row=Row(
                config=request.sampling,
                generator=torch.Generator().manual_seed(job.seeds[index]),
                prompt=request.prompt,
                n_top=request.n_top,
            ),
            slot=slot,
            unread=job.prompt[n_reused:],
            n_reused=n_reused,
            scores=[None] if tells else None,
            last_read=self._n_ticks,
            lookup=PromptLookup(request.prompt) if guesses else None,
        )
        job.running.append(choice)
        self._running.append(choice)

    def _guess(self, choice: Choice) -> list[int]:
        """Tokens that may come next: fewer than fill the context, a chunk, or the rest of the request."""
        if choice.lookup is None:
            return []
        room = self._block_size - 2 - len(self._slots.held[choice.slot])
        wanted = choice.job.request.max_new_tokens - len(choice.row.drawn) - 1
        return choice.lookup.guess(max(0, min(room, wanted, self.chunk - 1)))

    def _read_guess(self, choice: Choice, guess: list[int]) -> list[Event]:
        """Read the next token of a text with guesses behind it; tell what is drawn as far as they were right."""
        held = self._slots.held[choice.slot]
        hidden = self._slots.read(choice.slot, [*choice.unread, *guess])
        drawn = self._slots.draw(hidden, [choice.row] * len(hidden))
        n_right = next((k for k, token in enumerate(guess) if drawn[k].token != token), len(guess))
        del held[len(held) - len(guess) + n_right :]
        assert choice.lookup is not None
        choice.lookup.learn(len(guess), n_right)
        events: list[Event] = []
        for one in drawn[: n_right + 1]:
            events.append(self._take(choice, one))
            if events[-1].finish:
                break
        return events

    def _read_chunk(self, choice: Choice) -> Float[Tensor, "1 C"]:
        """Read the next chunk of a prompt; returns what the head reads after it."""
        start = len(self._slots.held[choice.slot])
        ids = choice.unread[: self.chunk - start % self.chunk]
        hidden = self._slots.read(choice.slot, ids)
        choice.unread = choice.unread[len(ids) :]
        choice.last_read = self._n_ticks
        if choice.scores is not None and not choice.row.drawn:
            followers = choice.job.prompt[start + 1 : start + 1 + len(ids)]
            if followers:
                choice.scores += self._score(hidden[: len(followers)], followers, choice.row.n_top or 0)
        return hidden[-1:]

    def _score(self, hidden: Float[Tensor, "T C"], followers: list[int], n_top: int) -> list[Score]:
        """The model's scores of the ids that follow."""
        logits = wide(self.model.logits(hidden))
        told = score(logits, torch.tensor(followers, device=logits.device), n_top)
        scores = [read_scores(values, n_top) for values in told.tolist()]
        if any(math.isnan(each.logprob) for each in scores):
            raise NoNumbersError
        return scores

    def _take(self, choice: Choice, drawn: Drawn | None) -> Event:
        """Note what was drawn for a text, and see whether it goes on."""
        job, row = choice.job, choice.row
        first = not row.drawn
        finish: Finish | None = None if drawn else "length"
        if drawn:
            row.drawn.append(drawn.token)
            if choice.lookup is not None:
                choice.lookup.push(drawn.token)
            choice.unread = [drawn.token]
            if drawn.token in job.request.stop_ids:
                finish = "stop"
            elif len(row.drawn) == job.request.max_new_tokens:
                finish = "length"
        scores, choice.scores = choice.scores, None
        job.was_read, job.reported = True, job.reported or scores is not None
        if finish:
            self._release(choice)
            self._forget_if_over(job)
        elif len(self._slots.held[choice.slot]) == self._block_size:
            self._slots.held[choice.slot].clear()
            n_window = max(1, self._block_size // 2)
            choice.unread = [*row.prompt, *row.drawn][-n_window:]
        return Event(
            request=job.id,
            choice=choice.index,
            token=drawn.token if drawn else None,
            score=drawn.score if drawn else None,
            finish=finish,
            prompt_scores=None if scores is None else tuple(scores),
            n_reused=choice.n_reused if first else 0,
        )

    def _release(self, choice: Choice) -> None:
        choice.job.running.remove(choice)
        self._running.remove(choice)
        self._slots.give_back(choice.slot)

    def _forget_if_over(self, job: Job) -> None:
        if not job.waiting and job in self._turn:
            self._turn.remove(job)
        if not job.waiting and not job.running:
            del self._jobs[job.id]


def generate_ids(
    model: LanguageModel,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    num_samples: int = 1,
    seed: int = 0,
) -> Iterator[list[int]]:
    """Continue one prompt by max_new_tokens tokens, whatever they are.

    Args:
        model: In evaluation mode.
        prompt: As in `Request`, as are the other arguments and the errors.
        max_new_tokens: How many steps to take.
        sampling: How tokens are chosen.
        num_samples: Continuations (B), side by side where memory allows.
        seed: Decides all of them.

    Returns:
        The next id of every sample, step by step.
    """
    engine = Engine(model, n_slots=count_slots(model, num_samples), chunk=model.config.block_size)
    request = Request(prompt=tuple(prompt), max_new_tokens=max_new_tokens, sampling=sampling, n=num_samples, seed=seed)
    engine.submit(request)
    return _steps(engine, [[] for _ in range(num_samples)], max_new_tokens)


def _steps(engine: Engine, texts: list[list[int]], n_steps: int) -> Iterator[list[int]]:
    for step in range(n_steps):
        while any(len(text) == step for text in texts):
            for event in engine.tick():
                if event.token is not None:
                    texts[event.choice].append(event.token)
        yield [text[step] for text in texts]
