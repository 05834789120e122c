"""How many requests may run at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from shared.errors import Overloaded, TooManyRequests

FIRST_GUESS_S = 1.0
WEIGHT = 0.2
"""Of the newest request in the running mean of durations."""


class Admission:
    """Bounds the requests that run, all together and for each caller. Belongs to one event loop.

    A refusal says after how long to try again: the time in which, on average, one of those that run ends.
    """

    def __init__(self, max_running: int, max_running_per_caller: int | None = None) -> None:
        self._max_running = max_running
        self._max_per_caller = max_running_per_caller
        self._running: Counter[str] = Counter()
        self._mean_s = FIRST_GUESS_S

    @property
    def running(self) -> int:
        return self._running.total()

    @contextmanager
    def admit(self, caller: str) -> Generator[None]:
        """Hold a place among those that run. Raises Overloaded (503), TooManyRequests (429)."""
        if self.running >= self._max_running:
            raise Overloaded(f"{self._max_running} requests run, the most there may", retry_after_s=self._wait_s())
        if self._max_per_caller is not None and self._running[caller] >= self._max_per_caller:
            raise TooManyRequests(
                f"{self._max_per_caller} requests run with this key, the most there may", retry_after_s=self._wait_s()
            )
        began = time.monotonic()
        self._running[caller] += 1
        try:
            yield
        finally:
            self._running[caller] -= 1
            if not self._running[caller]:
                del self._running[caller]
            self._mean_s += WEIGHT * (time.monotonic() - began - self._mean_s)

    def _wait_s(self) -> float:
        return round(max(0.1, self._mean_s / self.running), 1)
