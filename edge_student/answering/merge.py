"""Several async generators read as one, in the order in which their items come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")


async def merge(streams: Sequence[AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
    """The first error of any stream ends all. Closing this closes them all."""
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
        # Whatever else went wrong in them is not told: the first error is.
        await asyncio.gather(*tasks, return_exceptions=True)
