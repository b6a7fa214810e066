import asyncio

import pytest

pytest.importorskip("starlette")

from groundup.serving import app
from groundup.serving.app import _events
from groundup.serving.errors import RequestError


@pytest.mark.fault("F2", "a client goes away with the first event of its stream", "its texts end")
def test_a_client_that_vanishes_at_the_first_chunk_ends_its_texts():
    ended = []

    async def chunks():
        try:
            yield {"n": 1}
            yield {"n": 2}
        finally:
            ended.append(True)

    async def vanish():
        following = chunks()
        events = _events([await anext(following)], following)
        await anext(events)
        await events.aclose()

    asyncio.run(vanish())
    assert ended == [True]


@pytest.mark.fault("F8", "a failure in the middle of a stream, and a long silence", "told as events; the stream ends")
def test_a_failure_and_a_silence_are_events(monkeypatch):
    monkeypatch.setattr(app, "HEARTBEAT", 0.01)

    async def chunks():
        yield {"n": 1}
        await asyncio.sleep(0.1)
        raise RequestError(500, "the model failed")

    async def read():
        following = chunks()
        return [event async for event in _events([await anext(following)], following)]

    first, *silence, error, end = asyncio.run(read())
    assert first == b'data: {"n": 1}\n\n'
    assert set(silence) == {b": waiting\n\n"}
    assert b'"error": {"message": "the model failed"' in error
    assert end == b"data: [DONE]\n\n"
