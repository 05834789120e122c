"""A circuit breaker: after some failures in a row the cloud is left alone for a while, then one request tries it again.

Written here since the libraries that fit asyncio (purgatory, circuitbreaker) let every request through when half-open and
count on the wall clock, which jumps.
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
    """Every `allow` that returned True is answered by exactly one of `succeeded`, `failed` and `abandoned`."""

    def __init__(self, *, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._open_s = open_s
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._told_until = 0.0
        """The cloud said not to ask before, which nothing that ends meanwhile takes back."""
        self._trial = False

    @property
    def state(self) -> BreakerState:
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN

    def allow(self) -> bool:
        """Whether a request may go now. Half-open lets one through and waits for what becomes of it."""
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
        self._failures = 0
        self._open_until = self._told_until if self._clock() < self._told_until else None
        self._trial = False

    def failed(self, *, surely: bool = False) -> None:
        """`surely`: one such failure is enough."""
        self._failures += self._limit if surely else 1
        self._trial = False
        if self._failures >= self._limit or self._open_until is not None:
            self._open_until = max(self._told_until, self._clock() + self._open_s)

    def hold(self, seconds: float) -> None:
        """Leave the cloud alone for so long: it asked for that. Then it is tried with one request."""
        self._told_until = max(self._told_until, self._clock() + seconds)
        self._open_until = max(self._open_until or 0.0, self._told_until)
        self._trial = False

    def abandoned(self) -> None:
        """The request ended for a reason that says nothing about the cloud."""
        self._trial = False
