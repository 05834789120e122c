"""Bandwidth: a token bucket that all connections of a link share in one direction, first come, first served."""

from __future__ import annotations

import asyncio
from contextlib import suppress

PIECE_BYTES = 65536
SLICE_S = 0.02
"""A piece takes no longer than this, so that connections alternate and a change is felt at once."""
BURST_S = 0.01
"""What an idle link may send ahead, and a timer that fires late makes up for."""


class Pace:
    """Holds bytes back so that not more pass than the rate allows, in bytes a second; None: all of them."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._tokens = 0.0
        self._settled = 0.0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    def set(self, rate: float | None) -> None:
        """From now on, for whoever waits too."""
        if rate != self.rate:
            self._settle(0)
            self.rate = rate
            self._changed.set()
            self._changed = asyncio.Event()

    def piece(self) -> int:
        """How much to read at once."""
        return PIECE_BYTES if self.rate is None else max(1, min(PIECE_BYTES, int(self.rate * SLICE_S)))

    async def take(self, amount_bytes: int) -> None:
        """Wait for the turn of so many bytes, and for the time they take."""
        if self.rate is None and not self._turn.locked():
            return
        async with self._turn:
            while self.rate is not None:
                self._settle(amount_bytes)
                missing = amount_bytes - self._tokens
                if missing <= 0:
                    self._tokens -= amount_bytes
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout(missing / self.rate):
                        await self._changed.wait()

    def _settle(self, needed: int) -> None:
        now = asyncio.get_running_loop().time()
        if self.rate is None:
            self._tokens = 0.0
        else:
            most = max(self.rate * BURST_S, needed)
            self._tokens = min(most, self._tokens + (now - self._settled) * self.rate)
        self._settled = now
