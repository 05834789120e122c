"""Delay of one way: half of the link's latency, and jitter that is drawn for each piece of a connection."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random


class JitterDraws:
    """Draws the jitter of the pieces of one connection and direction. The same name draws the same sequence."""

    def __init__(self, name: str) -> None:
        self._random = Random(name)  # noqa: S311 - jitter, not a key

    def fraction(self) -> float:
        """Return the part of the link's jitter that the next piece has, from 0 to 1."""
        return self._random.random()


class Delay:
    """Delay of all pieces of one direction. A change applies at once, to bytes in transit too."""

    def __init__(self) -> None:
        self._delay_s = 0.0
        self._jitter_s = 0.0
        self._changed = asyncio.Event()

    def set(self, *, delay_s: float, jitter_s: float) -> None:
        """Set the delay of one way, and the upper bound of the jitter that is added to it."""
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self._changed.set()
        self._changed = asyncio.Event()

    async def arrival(self, sent_at: float, jitter_fraction: float) -> None:
        """Wait until bytes sent at `sent_at` arrive."""
        clock = asyncio.get_running_loop().time
        while (due := sent_at + self._delay_s + jitter_fraction * self._jitter_s) > clock():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
