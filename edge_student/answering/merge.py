"""Reads several async generators as one, in the order in which their items arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def merge(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """Yield the items of all streams. The first error of a stream ends all of them; closing this generator closes them all."""
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield item
        return
    items: asyncio.Queue[T] = asyncio.Queue(maxsize=len(streams))

    async def pump(stream: AsyncGenerator[T, None]) -> None:
        async with aclosing(stream):
            async for item in stream:
                await items.put(item)

    pumps = {asyncio.create_task(pump(stream)) for stream in streams}
    pending = set(pumps)
    taking: asyncio.Task[T] | None = None
    try:
        while pending or not items.empty():
            taking = taking or asyncio.create_task(items.get())
            done, _ = await asyncio.wait({taking, *pending}, return_when=asyncio.FIRST_COMPLETED)
            if taking in done:
                yield taking.result()
                taking = None
            for finished in done & pending:
                pending.discard(finished)
                finished.result()
    finally:
        tasks = [task for task in (taking, *pumps) if task]
        for task in tasks:
            task.cancel()
        # Only the first error is raised; any others are dropped.
        await asyncio.gather(*tasks, return_exceptions=True)
