"""Bandwidth: a token bucket that all connections of a link share in one direction, first come, first served."""

from __future__ import annotations

import asyncio
from contextlib import suppress

PIECE_BYTES = 65536
SLICE_S = 0.02
"""Upper bound of a piece's time, so that connections alternate and changes take effect at once."""
BURST_S = 0.01
"""Time that an idle link may send ahead, which also makes up for late timers."""


class TokenBucket:
    """Limits bytes to `rate` bytes per second; None is no limit."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._tokens = 0.0
        self._settled = 0.0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()

    def set(self, rate: float | None) -> None:
        """Change the rate at once, for waiting connections too."""
        if rate != self.rate:
            self._settle(0)
            self.rate = rate
            self._changed.set()
            self._changed = asyncio.Event()

    def piece(self) -> int:
        """Return how many bytes to read at once."""
        return PIECE_BYTES if self.rate is None else max(1, min(PIECE_BYTES, int(self.rate * SLICE_S)))

    async def take(self, amount_bytes: int) -> None:
        """Wait for a turn, and for the time that these bytes take."""
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
