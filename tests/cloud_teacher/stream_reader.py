"""A reader of guidance that runs beside a test, and the end of a cloud under two of them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping

import httpx
import pytest

from shared.errors import StreamBroken
from shared.protocol.guidance import Done, Event, Guidance
from shared.protocol.sse import decode
from tests.processes import Process


class Reader:
    """Reads a stream in a task of its own. `begun` is set after the teacher's first word."""

    def __init__(self, client: httpx.AsyncClient, budget: int) -> None:
        self.begun = asyncio.Event()
        self.events: list[Event] = []
        question = {"role": "user", "content": "Tell me a story."}
        # So hot that the model hardly ever finds its end.
        self._request = {"messages": [question], "max_guidance_tokens": budget, "temperature": 2, "seed": 1}
        self.task = asyncio.create_task(self._read(client))

    async def _read(self, client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/v1/guidance", json=self._request) as response:
            async for event in decode(response):
                self.events.append(event)
                if isinstance(event, Guidance):
                    self.begun.set()


async def end_by_ctrl_c(process: Process, headers: Mapping[str, str]) -> None:
    """Press Ctrl-C under two requests. The short one is served, the long one is cut after the grace, and nothing is left."""
    async with httpx.AsyncClient(base_url=process.url(), headers=headers, timeout=60) as client:
        short, long = Reader(client, 10), Reader(client, 1000)
        await asyncio.gather(short.begun.wait(), long.begun.wait())
        # To the whole group, as a terminal does it: the engine's processes get it too.
        ending = asyncio.create_task(asyncio.to_thread(process.end, signal.SIGINT, group=True))
        await short.task
        with pytest.raises((StreamBroken, httpx.RemoteProtocolError)):
            await long.task
        assert await ending == 130
    assert isinstance(short.events[-1], Done)
    assert short.events[-1].usage.completion_tokens == 10
    assert process.orphans() == {}
