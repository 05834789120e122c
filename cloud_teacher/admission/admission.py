"""Whether a request may run now: limits of its key, a place in the engine, the key's daily budget."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

from cloud_teacher.accounting.ledger import Asked, Ledger
from cloud_teacher.accounting.usage import Account
from cloud_teacher.admission.fair_queue import FairQueue, Ticket
from cloud_teacher.admission.rate_limits import Rates
from cloud_teacher.auth.caller import Caller
from shared.errors import BudgetSpent, BudgetTooLarge, Overloaded, TooManyRequests
from shared.prices import NANO
from shared.protocol.guidance import Usage

FIRST_GUESS_S = 1.0
WEIGHT = 0.2
"""Of the newest request in the running mean of durations."""
LONGEST_WAIT_S = 3600.0
"""That is asked of whoever has spent a day's budget: the budget may be raised before the day ends."""


class Admission:
    """Bounds the requests that run, all together and for each caller. Belongs to one event loop.

    A refusal says after how long to try again: where it is for want of a place, the time in which, on average, one comes free.
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
        self._rates = Rates()
        self._ledger = ledger
        self._mean_s = FIRST_GUESS_S

    @property
    def running(self) -> int:
        """In the engine."""
        return self._queue.running

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    @contextmanager
    def request(self, caller: Caller) -> Generator[None]:
        """Be one of a key's requests, whatever computes it. Raises TooManyRequests (429)."""
        most = caller.allowance.max_running or self._max_per_caller
        if most is not None and self._requests[caller.name] >= most:
            raise TooManyRequests(
                f"{most} requests are open with this key, the most there may be",
                retry_after_s=_at_least(self._mean_s / most),
            )
        self._rates.request(caller)
        self._requests[caller.name] += 1
        try:
            yield
        finally:
            self._requests[caller.name] -= 1
            if not self._requests[caller.name]:
                del self._requests[caller.name]

    @asynccontextmanager
    async def place(self, caller: Caller, account: Account, most: Usage, priority: int) -> AsyncGenerator[None]:
        """Hold a place in the engine for what can come to `most`; what the account has at the end is what is counted.

        Raises Overloaded (503), TooManyRequests (429), BudgetSpent (429), BudgetTooLarge (400), StoreFailed (503).
        """
        tokens = most.prompt_tokens + most.completion_tokens
        with self._rates.tokens(caller, tokens, account):
            nano_usd = account.prices.most_nano_usd(most) if account.prices else 0
            account.reservation = await self.reserve(caller, account, tokens, nano_usd)
            ticket = Ticket(caller.name, tokens, caller.allowance.weight, priority)
            arrived = time.monotonic()
            try:
                await self._queue.enter(ticket)
            except BaseException as error:
                if account.reservation and self._ledger:
                    self._ledger.release(account.reservation)
                if isinstance(error, Overloaded):
                    error.retry_after_s = _at_least(self._mean_s * (1 + self.waiting) / self._max_running)
                raise
            began = time.monotonic()
            account.waited_s = began - arrived if ticket.granted else 0.0
            try:
                yield
            finally:
                self._queue.leave(ticket, account.tokens)
                self._mean_s += WEIGHT * (time.monotonic() - began - self._mean_s)

    def give_back(self, account: Account) -> None:
        """What was set aside came to nothing."""
        if account.reservation and self._ledger:
            self._ledger.release(account.reservation)
            account.reservation = None

    async def reserve(self, caller: Caller, account: Account, tokens: int, nano_usd: int) -> str | None:
        """Set aside, of the key's daily budget if it has one, what a request can come to.

        Its row in the ledger settles it. Raises BudgetSpent, BudgetTooLarge, StoreFailed.
        """
        allowance = caller.allowance
        if self._ledger is None or not allowance.has_daily_budget:
            return None
        budget = allowance.daily_nano_usd
        if tokens > (allowance.daily_tokens or tokens) or nano_usd > (budget or nano_usd):
            raise BudgetTooLarge(
                f"the request can come to {tokens} tokens and ${nano_usd / NANO:g}: more than a day has"
            )
        asked = Asked(
            id=uuid.uuid4().hex,
            key=caller.name,
            day=account.arrived.date(),
            tokens=tokens,
            nano_usd=nano_usd,
            daily_tokens=allowance.daily_tokens,
            daily_nano_usd=budget,
        )
        try:
            spent = await self._ledger.reserve(asked)
        except BaseException:
            self._ledger.release(asked.id)  # it may have been made by then
            raise
        if spent:
            raise BudgetSpent(f"what is left of this day's {spent} is too little", retry_after_s=_until_tomorrow_s())
        return asked.id


def _at_least(seconds: float) -> float:
    return round(max(0.1, seconds), 1)


def _until_tomorrow_s() -> float:
    now = datetime.now(UTC)
    tomorrow = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    return min(LONGEST_WAIT_S, (tomorrow - now).total_seconds())
