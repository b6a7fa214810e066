"""The one thread that computes: it takes requests from an inbox, calls `tick`, and hands events out.

Handlers are coroutines of the HTTP server; they put a request in and wait for its events. Nothing of a model is ever
touched by another thread. An analysis runs here, too, between two ticks.
"""

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import ref

from groundup.config.errors import UserError
from groundup.generation.engine import Engine
from groundup.generation.requests import Event, Lane, Request
from groundup.serving.errors import RequestError

T = TypeVar("T")
MAX_FAILURES = 3
"""Ticks in a row that may fail for every text, and for one token too, before the server says it is not ready."""
ROUNDS = 512
"""Ticks that are remembered, for the picture of the slots."""
FRAME, TURN = 1 / 30, 1 / 160
"""Seconds for which events may wait, and for each text that is being written: so handlers are woken once for several
tokens. Nobody reads faster, and being woken takes cores from the products of the next token."""
HEARTBEAT = 15.0
"""Seconds after which a stream whose next event has not come yet says that it goes on."""


@dataclass(frozen=True, slots=True)
class Round:
    """One tick of one engine."""

    number: int
    engine: ref[Engine]
    """No more than a name of it: a model that is dropped leaves memory before its ticks are forgotten."""
    start: float
    """Seconds, of a clock that only goes forward."""
    seconds: float
    lanes: list[Lane]


News = tuple[int, list[Event] | BaseException]
"""The place of a request among those of its stream, and its events of one tick or why it failed."""
Moment = list[tuple[int, Event]]
"""Events that came together, with the places of their requests."""


class Mailbox:
    """What has come for one stream and was not taken yet. Belongs to the handlers' loop.

    While nothing comes, it gets no events every HEARTBEAT seconds, so that the stream can say that it goes on.
    """

    def __init__(self) -> None:
        self.home = asyncio.get_running_loop()
        self._news: list[News] = []
        self._waiting: asyncio.Future[None] | None = None
        self._beat()

    def put(self, news: News) -> None:
        """Add to what has come."""
        self._news.append(news)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def take(self) -> list[News]:
        """All that has come, when something has."""
        if not self._news:
            self._waiting = self.home.create_future()
            await self._waiting
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Expect no more takers."""
        self._next_beat.cancel()

    def _beat(self) -> None:
        self._next_beat = self.home.call_later(HEARTBEAT, self._beat)
        if self._waiting is not None and not self._news:
            self.put((0, []))


@dataclass(eq=False)
class Ticket:
    """A request on its way, and where its events go."""

    engine: Engine
    request: Request
    place: int
    mailbox: Mailbox
    """Of the stream that waits for it, and for others."""
    number: int | None = None
    told: bool = False
    """Whether it had an event: the first one does not wait."""
    gone: bool = False


class EngineLoop:
    """Runs engines on a thread of its own, until `close`: those that have something to do, in turn.

    Args:
        max_waiting: Choices that may wait or run; more are refused at once.
        before_ticks: Called by the thread before each round of them.
    """

    def __init__(self, *, max_waiting: int = 64, before_ticks: Callable[[], None] = lambda: None) -> None:
        self.max_waiting, self._before_ticks = max_waiting, before_ticks
        self.rounds: deque[Round] = deque(maxlen=ROUNDS)
        """The last ticks, oldest first; copy it before use, as the thread goes on."""
        self._n_rounds = 0
        self._busy: dict[int, Engine] = {}
        """Engines with requests, by their identity."""
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._tickets: dict[tuple[int, int], Ticket] = {}
        self._untold: dict[Ticket, list[Event]] = {}
        self._last_told = 0.0
        self._load = 0
        self._failures = 0
        self._draining = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether requests are taken and answered."""
        return self._thread.is_alive() and not self._draining and self._failures < MAX_FAILURES

    @property
    def load(self) -> int:
        """Choices that wait or run."""
        return self._load

    def check_room(self, n: int) -> None:
        """Refuse so many texts at once, where they would not be written: before anything is done for them.

        Raises:
            RequestError: 503, the server is stopping or has failed; 429, it is full.
        """
        if not self.ready:
            raise RequestError(503, "the server is stopping or has failed", code="not_ready")
        if self._load + n > self.max_waiting:
            raise RequestError(
                429,
                f"{self._load} texts are waiting or being written, of at most {self.max_waiting}: try again later",
                code="queue_full",
                headers={"retry-after": "1"},
            )

    async def stream(
        self,
        engine: Engine,
        requests: Sequence[Request],
        over: Callable[[int, int], bool] = lambda place, choice: False,
    ) -> AsyncGenerator[Moment, None]:
        """Events of some requests, all that have come since the last ones, until every choice has ended.

        Closing the iterator cancels the requests: their slots are free within a tick.

        Args:
            engine: The model's.
            requests: What to do.
            over: Asked, with the place of a request and a choice, after the events were used: has the choice ended by
                itself, at a stop string? Then it is cancelled.

        Returns:
            Events with the places of their requests; every HEARTBEAT seconds, perhaps, none.

        Raises:
            RequestError: The server is full, stopping, or the model failed.
            UserError: The engine refuses a request.
        """
        n = sum(request.n for request in requests)
        self.check_room(n)
        mailbox = Mailbox()
        tickets = [Ticket(engine, request, place, mailbox) for place, request in enumerate(requests)]
        going = {(place, choice) for place, request in enumerate(requests) for choice in range(request.n)}
        self._load += n
        try:
            for ticket in tickets:
                self._inbox.put(partial(self._submit, ticket))
            while going:
                moment = [
                    (place, event)
                    for place, news in await mailbox.take()
                    for event in _or_raise(news)
                    if (place, event.choice) in going
                ]
                yield moment
                for place, event in moment:
                    text = (place, event.choice)
                    if event.finish is not None:
                        going.discard(text)
                    elif text in going and over(*text):
                        going.remove(text)
                        self._inbox.put(partial(self._cancel, tickets[place], event.choice))
        finally:
            mailbox.close()
            self._load -= n
            for ticket in tickets:
                ticket.gone = True
                self._inbox.put(partial(self._forget, ticket))

    async def call(self, work: Callable[[], T]) -> T:
        """Run something between two ticks, where nothing else uses the models."""
        home = asyncio.get_running_loop()
        answer: asyncio.Future[T] = home.create_future()

        def finish(method: Callable[[Any], None], value: Any) -> None:
            if not answer.done():  # the client may have gone
                method(value)

        def run() -> None:
            if answer.cancelled():
                return
            try:
                result = work()
            except Exception as error:  # raised where the work was asked for
                home.call_soon_threadsafe(finish, answer.set_exception, error)
            else:
                home.call_soon_threadsafe(finish, answer.set_result, result)

        self._inbox.put(run)
        return await answer

    def close(self) -> None:
        """End the thread, after the tick that it is in."""
        self._draining = True
        self._inbox.put(None)
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while True:
            self._busy = {key: engine for key, engine in self._busy.items() if engine.busy}
            while not (self._inbox.empty() and self._busy):
                work = self._inbox.get()  # sleeps here when there is nothing to do
                if work is None:
                    return
                work()
                self._busy = {key: engine for key, engine in self._busy.items() if engine.busy}
            self._before_ticks()
            for engine in self._busy.values():
                self._tick(engine)

    def _tick(self, engine: Engine) -> None:
        start = time.monotonic()
        try:
            events = engine.tick()
            self._failures = 0
        except Exception:  # whatever it is, the server lives on
            events = self._tick_one_by_one(engine)
        self._n_rounds += 1
        self.rounds.append(Round(self._n_rounds, ref(engine), start, time.monotonic() - start, engine.lanes))
        mine: dict[int, list[Event]] = {}
        for event in events:
            mine.setdefault(event.request, []).append(event)
        found = ((self._tickets.get((id(engine), number)), news) for number, news in mine.items())
        news = [(ticket, told) for ticket, told in found if ticket is not None]
        for ticket, told in news:
            self._untold.setdefault(ticket, []).extend(told)
        if time.monotonic() >= self._last_told + max(FRAME, TURN * len(news)):
            self._tell_all()
        elif eager := [t for t, told in news if not t.told or any(event.finish is not None for event in told)]:
            self._tell_some([(t, self._untold.pop(t)) for t in eager])

    def _tell_all(self) -> None:
        self._tell_some([*self._untold.items()])
        self._untold, self._last_told = {}, time.monotonic()

    def _tell_some(self, news: Sequence[tuple[Ticket, list[Event]]]) -> None:
        for ticket, _ in news:
            ticket.told = True
        _tell(news)

    def _tick_one_by_one(self, engine: Engine) -> list[Event]:
        """After a tick that failed: a request that fails alone, too, ends with the reason; all others go on."""
        events: list[Event] = []
        failed: dict[tuple[int, int], Exception] = {}
        for key in [key for key in self._tickets if key[0] == id(engine)]:
            try:
                events += engine.tick(only=key[1])
            except Exception as error:
                failed[key] = error
        for key in failed:
            engine.cancel(key[1])
        works = True if events else _answers(engine)
        if works is not None:
            self._failures = 0 if works else self._failures + 1
        if failed:
            self._tell_all()  # what came before the failure comes before it
        for key, reason in failed.items():
            message = " ".join(f"the model failed: {type(reason).__name__}: {reason}".split())
            _tell([(self._tickets.pop(key), RequestError(500, message, code="engine_failed"))])
        return events

    def _submit(self, ticket: Ticket) -> None:
        if ticket.gone:
            return
        try:
            ticket.number = ticket.engine.submit(ticket.request)
        except (UserError, ValueError) as error:
            _tell([(ticket, error)])
            return
        self._tickets[id(ticket.engine), ticket.number] = ticket
        self._busy[id(ticket.engine)] = ticket.engine

    def _cancel(self, ticket: Ticket, choice: int | None = None) -> None:
        if ticket.number is not None:
            ticket.engine.cancel(ticket.number, choice)

    def _forget(self, ticket: Ticket) -> None:
        self._cancel(ticket)
        if ticket.number is not None:
            self._tickets.pop((id(ticket.engine), ticket.number), None)


def _tell(news: Sequence[tuple[Ticket, list[Event] | BaseException]]) -> None:
    """Hand over to the handlers' loop, which is woken once for all of it; it may be over already."""
    for home in {ticket.mailbox.home for ticket, _ in news}:
        if not home.is_closed():
            home.call_soon_threadsafe(_put, [(ticket, what) for ticket, what in news if ticket.mailbox.home is home])


def _put(news: Sequence[tuple[Ticket, list[Event] | BaseException]]) -> None:
    for ticket, what in news:
        if not ticket.gone:
            ticket.mailbox.put((ticket.place, what))


def _or_raise(news: list[Event] | BaseException) -> list[Event]:
    if isinstance(news, BaseException):
        raise news
    return news


def _answers(engine: Engine) -> bool | None:
    """Whether a model answers anything (None: no slot is free to ask): it may fail for some texts and no others."""
    number = engine.submit(Request(prompt=(0,), max_new_tokens=1))
    try:
        return True if engine.tick(only=number) else None
    except Exception:
        return False
    finally:
        engine.cancel(number)
