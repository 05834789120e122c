"""A circuit breaker: consecutive failures open it for a while, then one request tries the cloud again.

The libraries that fit asyncio (purgatory, circuitbreaker) are no alternative: they let every request through when half-open and
use the wall clock, which jumps.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Each `allow` that returns True must be followed by exactly one of `succeeded`, `failed` and `abandoned`."""

    def __init__(self, *, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._held_until = 0.0
        """Time until which the cloud asked for no requests. The outcomes of earlier requests do not change it."""
        self._trial = False
        """True while the one request of the half-open state is running."""

    @property
    def state(self) -> BreakerState:
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN

    def allow(self) -> bool:
        """Return whether a request may be sent now. The half-open state lets one through and waits for its outcome."""
        match self.state:
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                allowed = not self._trial
                self._trial = True
                return allowed

    def succeeded(self) -> None:
        """Record a success, which closes the breaker unless the cloud asked for no requests."""
        self._failures = 0
        self._open_until = self._held_until if self._clock() < self._held_until else None
        self._trial = False

    def failed(self, *, at_once: bool = False) -> None:
        """Record a failure. With `at_once` this one opens the breaker."""
        self._failures += self._limit if at_once else 1
        self._trial = False
        if self._failures >= self._limit or self._open_until is not None:
            self._open_until = max(self._held_until, self._clock() + self._open_s)

    def hold(self, seconds: float) -> None:
        """Open the breaker for the time that the cloud asked for (`Retry-After`). Then one request tries the cloud again."""
        self._held_until = max(self._held_until, self._clock() + seconds)
        self._open_until = max(self._open_until or 0.0, self._held_until)
        self._trial = False

    def abandoned(self) -> None:
        """Record a request whose end reveals nothing about the cloud."""
        self._trial = False
