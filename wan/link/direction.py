"""One direction of a link: what it does to the bytes of all connections, and how many have passed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

from wan.link.faults import Fault, Fuse
from wan.link.token_bucket import Pace


class Lane:
    """Shared by all pipes of its direction. Changes hold at once, for bytes under way too."""

    def __init__(self, direction: Literal["up", "down"]) -> None:
        self.direction = direction
        self.bytes = 0
        """That have arrived at the other end."""
        self.pace = Pace()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.corruption: Fault | None = None
        self.fuse: Fuse | None = None
        self._delay_s = 0.0
        self._jitter_s = 0.0
        self._changed = asyncio.Event()

    def shape(self, *, delay_s: float, jitter_s: float, rate: float | None) -> None:
        """One way's times, and bytes a second."""
        self._delay_s, self._jitter_s = delay_s, jitter_s
        self.pace.set(rate)
        self._changed.set()
        self._changed = asyncio.Event()

    def flow(self, on: bool) -> None:
        if on:
            self.flowing.set()
        else:
            self.flowing.clear()

    async def arrival(self, sent_at: float, luck: float) -> None:
        """Wait until what was sent then arrives here; `luck`, 0 to 1, is its share of the jitter."""
        clock = asyncio.get_running_loop().time
        while (due := sent_at + self._delay_s + luck * self._jitter_s) > clock():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()

    def passed(self, amount_bytes: int) -> None:
        self.bytes += amount_bytes
        if self.fuse:
            self.fuse.burn(amount_bytes)
