"""One direction of a link: its delay, bandwidth and faults for all connections, and its count of bytes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

from wan.link.faults import ByteTrigger, Fault
from wan.link.token_bucket import TokenBucket


class LinkDirection:
    """State shared by all pipes of a direction. Changes apply at once, to bytes in transit too."""

    def __init__(self, direction: Literal["up", "down"]) -> None:
        self.direction = direction
        self.bytes = 0
        """Bytes that have arrived at the other end."""
        self.bucket = TokenBucket()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.corruption: Fault | None = None
        self.trigger: ByteTrigger | None = None
        self._delay_s = 0.0
        self._jitter_s = 0.0
        self._changed = asyncio.Event()

    def shape(self, *, delay_s: float, jitter_s: float, rate: float | None) -> None:
        """Set delay and jitter of one way, and the rate in bytes per second."""
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self.bucket.set(rate)
        self._changed.set()
        self._changed = asyncio.Event()

    def flow(self, on: bool) -> None:
        if on:
            self.flowing.set()
        else:
            self.flowing.clear()

    async def arrival(self, sent_at: float, jitter_fraction: float) -> None:
        """Wait until bytes sent at `sent_at` arrive; `jitter_fraction`, 0 to 1, is their part of the jitter."""
        clock = asyncio.get_running_loop().time
        while (due := sent_at + self._delay_s + jitter_fraction * self._jitter_s) > clock():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()

    def passed(self, amount_bytes: int) -> None:
        self.bytes += amount_bytes
        if self.trigger:
            self.trigger.count(amount_bytes)
