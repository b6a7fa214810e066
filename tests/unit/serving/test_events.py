import asyncio

import pytest

pytest.importorskip("starlette")

from groundup.serving.app import _events


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
