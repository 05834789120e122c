"""Admission of requests: limits of a key, a slot of the engine, and the key's daily budget."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

from cloud_teacher.accounting.ledger import BudgetRequest, Ledger
from cloud_teacher.accounting.usage import UsageRecord
from cloud_teacher.admission.fair_queue import FairQueue, Ticket
from cloud_teacher.admission.rate_limits import RateLimits
from cloud_teacher.auth.caller import Caller
from shared.errors import BudgetSpent, BudgetTooLarge, Overloaded, TooManyRequests
from shared.prices import NANO

INITIAL_DURATION_S = 1.0
"""Assumed duration of a request before any has ended."""
DURATION_EMA_ALPHA = 0.2
"""Smoothing factor of the moving average of request durations."""
MAX_RETRY_AFTER_S = 3600.0
"""Upper bound of the Retry-After for a spent daily budget, as an operator may raise the budget before the day ends."""


class Admission:
    """Bounds the requests that run, in total and for each caller. Belongs to one event loop.

    Every refusal has a Retry-After. For a lack of slots it is the average time until one becomes free.
    """

    def __init__(
        self,
        max_running: int,
        max_running_per_caller: int | None = None,
        *,
        max_waiting: int = 0,
        deadline_s: float = 10.0,
        ledger: Ledger | None = None,
    ) -> None:
        self._queue = FairQueue(max_running, max_waiting, deadline_s)
        self._max_running = max_running
        self._max_per_caller = max_running_per_caller
        self._requests: Counter[str] = Counter()
        self._rates = RateLimits()
        self._ledger = ledger
        self._mean_s = INITIAL_DURATION_S

    @property
    def running(self) -> int:
        """Number of requests with a slot."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return self._queue.waiting

    @contextmanager
    def request(self, caller: Caller) -> Generator[None]:
        """Count a request of a key while it is open, with or without a slot. Raises TooManyRequests (429)."""
        limit = caller.allowance.max_running or self._max_per_caller
        if limit is not None and self._requests[caller.name] >= limit:
            raise TooManyRequests(
                f"too many open requests with this key; the limit is {limit}",
                retry_after_s=_at_least(self._mean_s / limit),
            )
        self._rates.count_request(caller)
        self._requests[caller.name] += 1
        try:
            yield
        finally:
            self._requests[caller.name] -= 1
            if not self._requests[caller.name]:
                del self._requests[caller.name]

    @asynccontextmanager
    async def slot(
        self, caller: Caller, record: UsageRecord, *, priority: int, max_nano_usd: int
    ) -> AsyncGenerator[None]:
        """Hold a slot of the engine, and a reservation of the key's budget, for a request with `record.max_usage`.

        Raises Overloaded (503), TooManyRequests (429), BudgetSpent (429), BudgetTooLarge (400), StoreFailed (503).
        """
        assert record.max_usage is not None  # noqa: S101 - the prompt is encoded
        tokens = record.max_usage.prompt_tokens + record.max_usage.completion_tokens
        with self._rates.tokens(caller, tokens, record):
            async with self.reservation(caller, record, tokens=tokens, nano_usd=max_nano_usd):
                ticket = Ticket(caller.name, tokens, caller.allowance.weight, priority)
                async with self._queued(ticket, record):
                    yield

    @asynccontextmanager
    async def reservation(
        self, caller: Caller, record: UsageRecord, *, tokens: int, nano_usd: int
    ) -> AsyncGenerator[None]:
        """Reserve part of the key's daily budget, if it has one. The reservation is released unless `record` is committed.

        Raises BudgetSpent, BudgetTooLarge, StoreFailed.
        """
        record.reservation = await self._reserve(caller, record, tokens, nano_usd)
        try:
            yield
        finally:
            if record.reservation and self._ledger:
                self._ledger.release(record.reservation)
                record.reservation = None

    @asynccontextmanager
    async def _queued(self, ticket: Ticket, record: UsageRecord) -> AsyncGenerator[None]:
        """Wait for a slot, and hold it."""
        arrived = time.monotonic()
        try:
            await self._queue.enter(ticket)
        except Overloaded as error:
            error.retry_after_s = _at_least(self._mean_s * (1 + self.waiting) / self._max_running)
            raise
        began = time.monotonic()
        record.waited_s = began - arrived if ticket.granted else 0.0
        try:
            yield
        finally:
            self._queue.leave(ticket, record.tokens)
            self._mean_s += DURATION_EMA_ALPHA * (time.monotonic() - began - self._mean_s)

    async def _reserve(self, caller: Caller, record: UsageRecord, tokens: int, nano_usd: int) -> str | None:
        allowance = caller.allowance
        if self._ledger is None or not allowance.has_daily_budget:
            return None
        if tokens > (allowance.daily_tokens or tokens) or nano_usd > (allowance.daily_nano_usd or nano_usd):
            raise BudgetTooLarge(
                f"the request can use {tokens} tokens and cost ${nano_usd / NANO:g}, which exceeds the key's daily budget"
            )
        request = BudgetRequest(
            id=uuid.uuid4().hex,
            key=caller.name,
            day=record.arrived.date(),
            tokens=tokens,
            nano_usd=nano_usd,
            daily_tokens=allowance.daily_tokens,
            daily_nano_usd=allowance.daily_nano_usd,
        )
        try:
            spent = await self._ledger.reserve(request)
        except BaseException:
            self._ledger.release(request.id)  # the database may have committed it
            raise
        if spent:
            raise BudgetSpent(
                f"too little is left of the key's daily budget of {spent}", retry_after_s=_until_tomorrow_s()
            )
        return request.id


def _at_least(seconds: float) -> float:
    return round(max(0.1, seconds), 1)


def _until_tomorrow_s() -> float:
    now = datetime.now(UTC)
    tomorrow = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    return min(MAX_RETRY_AFTER_S, (tomorrow - now).total_seconds())
