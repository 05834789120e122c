"""Usage of requests: counted while they run, then written to the metrics and the ledger."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from cloud_teacher.accounting.ledger import Ledger, LedgerRow
from cloud_teacher.metrics import CloudMetrics
from cloud_teacher.teachers.base import OutputChunk
from shared.errors import GktError, InternalError
from shared.prices import NANO, Prices
from shared.protocol.guidance import Timing, Usage

CLIENT_DISCONNECTED = "client_disconnected"
"""Outcome of a request whose client left before the end."""
MAX_NAME_CHARS = 255
"""Length of the ledger's columns for names."""

ReuseKind = Literal["coalesced", "cached"]
ReusePrice = Literal["free", "cached"]


@dataclass(slots=True)
class UsageRecord:
    """Usage of one request so far; its row in the ledger once it ends. Times are those of `time.monotonic`."""

    request_id: str
    key: str
    kind: Literal["guidance", "review"]
    template: str
    model: str
    """The teacher that was asked for; later the one that writes."""
    prices: Prices | None = None
    """Prices of that teacher, if the operator set any."""
    max_usage: Usage | None = None
    """Upper bound of the usage, once the prompt is encoded."""
    arrived_s: float = field(default_factory=time.monotonic)
    arrived: datetime = field(default_factory=lambda: datetime.now(UTC))
    prompt_tokens: int = 0
    """Tokens of all prompts: a review that continues in guidance has two."""
    cached_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    """Set while the server that bills for the tokens has not sent its own count."""
    reused: ReuseKind | None = None
    """Set if this response reused another request's generation; its tokens are not billed here."""
    source: UsageRecord | None = None
    """Record of that other request."""
    reused_tokens: int = 0
    """Tokens of the reused response that were sent."""
    queue_s: float | None = None
    """Time in the engine's queue, if the engine measures it."""
    waited_s: float = 0.0
    """Time in the queue for a slot of the engine."""
    first_s: float | None = None
    last_s: float | None = None
    outcome: str = CLIENT_DISCONNECTED
    reservation: str | None = None
    """Reservation of the key's daily budget, until it is settled or released."""

    def set_teacher(self, model: str, prices: Prices | None, max_usage: Usage) -> None:
        """Start over with a teacher. One that failed before its first token is not paid."""
        self.model, self.prices, self.max_usage = model, prices, max_usage
        self.reset_usage()

    def reset_usage(self) -> None:
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.estimated = False
        self.queue_s = None

    def reuse(self, kind: ReuseKind, source: UsageRecord) -> None:
        """Take the response of another request, from the teacher that writes or wrote it."""
        self.reused, self.source = kind, source
        self.model, self.prices = source.model, source.prices

    def count_reused(self, tokens: int) -> None:
        self.reused_tokens += tokens
        self.first_s = self.first_s or time.monotonic()

    @property
    def usage(self) -> Usage:
        """Tokens that were computed for this request."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            estimated=self.estimated,
        )

    @property
    def response_usage(self) -> Usage:
        """Tokens of the response that the client reads, whichever request they were computed for."""
        return self.source.usage if self.source else self.usage

    @property
    def tokens(self) -> int:
        """Tokens as rate limits and budgets count them."""
        return self.prompt_tokens + self.completion_tokens

    def timing(self) -> Timing:
        """Return the times until now, in milliseconds."""
        queue_s = self.waited_s + (self.queue_s or 0.0) if self.waited_s or self.queue_s is not None else None
        return Timing(
            queue_ms=None if queue_s is None else round(queue_s * 1000, 3),
            first_token_ms=None if self.first_s is None else round((self.first_s - self.arrived_s) * 1000, 3),
            total_ms=round((time.monotonic() - self.arrived_s) * 1000, 3),
        )


class UsageRecorder:
    """Adds output to the records of running requests, and commits them. Without a ledger it only updates the metrics."""

    def __init__(
        self, metrics: CloudMetrics, ledger: Ledger | None = None, *, reused_response_price: ReusePrice = "free"
    ) -> None:
        self.metrics = metrics
        self._ledger = ledger
        self._reused_price = reused_response_price

    def add(self, record: UsageRecord, chunk: OutputChunk) -> None:
        """Count a chunk that the teacher has written."""
        now = time.monotonic()
        record.completion_tokens += chunk.count
        if chunk.usage:  # the bill goes by the server's count
            record.prompt_tokens, record.cached_tokens = chunk.usage.prompt_tokens, chunk.usage.cached_tokens
            record.completion_tokens, record.estimated = chunk.usage.completion_tokens, False
        if not chunk.text and not chunk.token_ids:
            return
        if record.last_s is None:
            record.first_s = now
            self.metrics.first_token.observe(now - record.arrived_s)
        else:
            self.metrics.inter_token.observe(now - record.last_s)
        record.last_s = now

    def cost_usd(self, record: UsageRecord) -> float | None:
        """Return the cost of the response at its teacher's prices, or None without prices."""
        if record.prices is None:
            return None
        usage = record.response_usage
        return self._reused_nano_usd(usage, record.prices) / NANO if record.reused else record.prices.cost_usd(usage)

    def max_nano_usd(self, record: UsageRecord) -> int:
        """Return the most that a request can cost, before it runs."""
        usage = record.source.max_usage if record.source else record.max_usage
        if record.prices is None or usage is None:
            return 0
        return self._reused_nano_usd(usage, record.prices) if record.reused else record.prices.most_nano_usd(usage)

    def commit(self, record: UsageRecord) -> asyncio.Future[None]:
        """Write a request that has ended to metrics and ledger, and settle its reservation.

        The future is done once the row is on disk, and raises StoreFailed. The row is written even if it is not awaited.
        """
        nano_usd = 0
        if record.source:
            sent = Usage(prompt_tokens=record.source.prompt_tokens, completion_tokens=record.reused_tokens)
            nano_usd = self._reused_nano_usd(sent, record.prices) if record.prices else 0
            self.metrics.count_reused(record.reused or "", record.reused_tokens, nano_usd / NANO)
        else:
            nano_usd = record.prices.nano_usd(record.usage) if record.prices else 0
            self.metrics.count(record.usage, self.cost_usd(record), teacher=record.model, outcome=record.outcome)
        reservation, record.reservation = record.reservation, None
        if self._ledger is None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        return self._ledger.record(_row(record, nano_usd), reservation)

    def _reused_nano_usd(self, usage: Usage, prices: Prices) -> int:
        """Return the price of a reused response: free, or all of its tokens as cached input tokens."""
        if self._reused_price == "free":
            return 0
        tokens = usage.prompt_tokens + usage.completion_tokens
        return prices.nano_usd(Usage(prompt_tokens=tokens, cached_tokens=tokens, completion_tokens=0))


def error_code(error: Exception) -> str:
    """Return the outcome of a request that ended with this error."""
    return error.code if isinstance(error, GktError) else InternalError.code


def _row(record: UsageRecord, nano_usd: int) -> LedgerRow:
    timing = record.timing()
    return LedgerRow(
        id=uuid4().hex,
        request_id=record.request_id,
        key=record.key,
        kind=record.kind,
        model=record.model[:MAX_NAME_CHARS],
        template=record.template[:MAX_NAME_CHARS],
        day=record.arrived.date(),
        arrived_ms=int(record.arrived.timestamp() * 1000),
        queue_ms=timing.queue_ms,
        first_token_ms=timing.first_token_ms,
        total_ms=timing.total_ms,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        completion_tokens=record.completion_tokens,
        reused_tokens=record.reused_tokens,
        finish_reason=record.outcome,
        reused=record.reused,
        cost_nano_usd=nano_usd,
        estimated=record.estimated,
    )
