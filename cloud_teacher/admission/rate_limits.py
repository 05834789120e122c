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

from cloud_teacher.accounting.usage import UsageRecord
from cloud_teacher.auth.caller import Caller
from shared.errors import BudgetTooLarge, TooManyRequests

MINUTE_S = 60.0
per_minute = lru_cache(1000)(RateLimitItemPerMinute)


class RateLimits:
    """Counts requests and tokens of keys that have rates. Belongs to one event loop."""

    def __init__(self) -> None:
        storage = MemoryStorage()
        self._requests = MovingWindowRateLimiter(storage)
        self._tokens = SlidingWindowCounterRateLimiter(storage)
        self._held: Counter[str] = Counter()
        """Upper bound for the tokens of each key's running requests. The window counts those of requests that ended."""

    def count_request(self, caller: Caller) -> None:
        """Count a request. Raises TooManyRequests."""
        rate = caller.allowance.requests_per_minute
        if rate is None:
            return
        if not self._requests.hit(per_minute(rate), "requests", caller.name):
            free_at = self._requests.get_window_stats(per_minute(rate), "requests", caller.name).reset_time
            raise TooManyRequests(
                f"the key's limit of {rate} requests per minute is reached",
                retry_after_s=max(0.1, free_at - time.time()),
            )

    @contextmanager
    def tokens(self, caller: Caller, max_tokens: int, record: UsageRecord) -> Generator[None]:
        """Hold `max_tokens` while a request runs, then count the tokens of its record.

        Raises TooManyRequests, and BudgetTooLarge if the request needs more than a minute's tokens.
        """
        rate = caller.allowance.tokens_per_minute
        if rate is None:
            yield
            return
        if max_tokens > rate:
            raise BudgetTooLarge(
                f"the request can use {max_tokens} tokens; the key's limit is {rate} tokens per minute"
            )
        item, wanted = per_minute(rate), self._held[caller.name] + max_tokens
        if not self._tokens.test(item, "tokens", caller.name, cost=wanted):
            left = self._tokens.get_window_stats(item, "tokens", caller.name).remaining
            raise TooManyRequests(
                f"the key's limit of {rate} tokens per minute is reached",
                retry_after_s=max(0.1, MINUTE_S * (wanted - left) / rate),
            )
        self._held[caller.name] += max_tokens
        try:
            yield
        finally:
            self._held[caller.name] -= max_tokens
            if not self._held[caller.name]:
                del self._held[caller.name]
            if record.tokens:
                self._tokens.hit(item, "tokens", caller.name, cost=record.tokens)
