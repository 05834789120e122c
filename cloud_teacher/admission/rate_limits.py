"""Requests and tokens per minute of each key, at this replica. The windows are those of the library `limits`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from cloud_teacher.accounting.usage import Account
from cloud_teacher.auth.caller import Caller
from shared.errors import BudgetTooLarge, TooManyRequests

MINUTE_S = 60.0
per_minute = lru_cache(1000)(RateLimitItemPerMinute)


class Rates:
    """Belongs to one event loop. Keys without rates cost nothing."""

    def __init__(self) -> None:
        storage = MemoryStorage()
        self._requests = MovingWindowRateLimiter(storage)
        self._tokens = SlidingWindowCounterRateLimiter(storage)
        self._held: Counter[str] = Counter()
        """The most that running requests can come to. The window counts what they came to."""

    def request(self, caller: Caller) -> None:
        """Count a request. Raises TooManyRequests."""
        rate = caller.allowance.requests_per_minute
        if rate is None:
            return
        if not self._requests.hit(per_minute(rate), "requests", caller.name):
            free_at = self._requests.get_window_stats(per_minute(rate), "requests", caller.name).reset_time
            raise TooManyRequests(
                f"this key may ask {rate} times a minute", retry_after_s=max(0.1, free_at - time.time())
            )

    @contextmanager
    def tokens(self, caller: Caller, most: int, account: Account) -> Generator[None]:
        """Hold so many tokens while a request runs, and count those of its account at its end.

        Raises TooManyRequests, BudgetTooLarge where they are more than a minute has.
        """
        rate = caller.allowance.tokens_per_minute
        if rate is None:
            yield
            return
        if most > rate:
            raise BudgetTooLarge(f"the request can come to {most} tokens; this key may use {rate} a minute")
        item, wanted = per_minute(rate), self._held[caller.name] + most
        if not self._tokens.test(item, "tokens", caller.name, cost=wanted):
            left = self._tokens.get_window_stats(item, "tokens", caller.name).remaining
            raise TooManyRequests(
                f"this key may use {rate} tokens a minute", retry_after_s=max(0.1, MINUTE_S * (wanted - left) / rate)
            )
        self._held[caller.name] += most
        try:
            yield
        finally:
            self._held[caller.name] -= most
            if not self._held[caller.name]:
                del self._held[caller.name]
            if account.tokens:
                self._tokens.hit(item, "tokens", caller.name, cost=account.tokens)
