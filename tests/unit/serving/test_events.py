import asyncio
import json
import threading
from itertools import chain

import pytest

pytest.importorskip("starlette")

from groundup.generation.requests import Request
from groundup.serving import loop as engine_loop
from groundup.serving.errors import RequestError
from groundup.serving.streams import EventStream


def answer(events, received=()):
    """Bodies that a client gets which sends this once it has the first."""
    told = []

    async def run():
        begun = asyncio.Event()

        async def receive():
            await (begun.wait() if received else asyncio.sleep(3600))
            return received[0]

        async def send(message):
            if message["type"] == "http.response.body":
                told.append(message["body"])
                begun.set()

        await EventStream(events)({}, receive, send)

    asyncio.run(run())
    return told


@pytest.mark.fault("F2", "a client goes away with the first event of its stream", "its texts end")
def test_a_client_that_vanishes_at_the_first_event_ends_its_texts():
    ended = []

    async def events():
        try:
            yield b"1"
            await asyncio.sleep(3600)
            yield b"2"
        finally:
            ended.append(True)

    told = answer(events(), received=[{"type": "http.disconnect"}])
    assert ended == [True]
    assert b"2" not in b"".join(told)


@pytest.mark.fault("F8", "a failure in the middle of a stream", "told as an event; the stream ends")
def test_a_failure_is_an_event():
    async def events():
        yield b"1"
        raise RequestError(500, "the model failed")

    first, end = answer(events())
    assert first == b"1"
    error, done, rest = end.split(b"\n\n")
    assert b'"error": {"message": "the model failed"' in error
    assert (done, rest) == (b"data: [DONE]", b"")


@pytest.mark.fault("F8", "a long silence in a stream", "told as a comment")
def test_a_silence_is_a_comment(client, served, monkeypatch):
    monkeypatch.setattr(engine_loop, "HEARTBEAT", 0.01)
    told, put = threading.Event(), engine_loop.Mailbox.put
    tick, ticks = served.engine.tick, []

    def watched(mailbox, news):
        put(mailbox, news)
        if news == (0, []):
            told.set()

    def silent(only=None):
        ticks.append(only)
        if len(ticks) == 3:
            told.clear()
            told.wait(60)
        return tick(only)

    monkeypatch.setattr(engine_loop.Mailbox, "put", watched)
    monkeypatch.setattr(served.engine, "tick", silent)
    body = {"prompt": "a", "max_tokens": 5, "stream": True}
    lines = [line for line in client.post("/v1/completions", json=body).text.split("\n\n") if line]
    assert ": waiting" in lines
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert len("".join(event["choices"][0]["text"] for event in events)) == 5


def test_events_that_wait_are_told_together(loop, served):
    """Of a client that reads slowly, or of several choices."""

    async def read():
        moments = []
        async for moment in loop.stream(served.engine, [Request(prompt=(1, 2), max_new_tokens=8, n=2)] * 2):
            moments.append(moment)
            while served.engine.busy:
                await asyncio.sleep(0.01)
        return moments

    moments = asyncio.run(read())
    drawn = {(place, choice): 0 for place in (0, 1) for choice in (0, 1)}
    for place, event in [pair for moment in moments for pair in moment]:
        drawn[place, event.choice] += 1
    assert set(drawn.values()) == {8}
    assert len(moments) < 8


@pytest.mark.parametrize("name", ["FRAME", "TURN"])
def test_events_wait_for_each_other_but_not_the_first_and_the_last(loop, served, monkeypatch, name):
    async def moments():
        request = Request(prompt=(1,), max_new_tokens=9)
        return [[event.token for _, event in moment] async for moment in loop.stream(served.engine, [request])]

    monkeypatch.setattr(engine_loop, name, 3600)
    waited = asyncio.run(moments())
    assert [len(tokens) for tokens in waited] in ([1, 8], [9])  # one, where the handlers were slow to take the first
    monkeypatch.setattr(engine_loop, name, 0)
    assert [*chain(*asyncio.run(moments()))] == [*chain(*waited)]
