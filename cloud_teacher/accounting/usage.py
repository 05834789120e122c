"""What requests took, and where it is written: the metrics, the ledger."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from cloud_teacher.accounting.ledger import Ledger, Row
from cloud_teacher.metrics import CloudMetrics
from cloud_teacher.teachers.base import Piece
from shared.prices import NANO, Prices
from shared.protocol.guidance import Timing, Usage

CLIENT_DISCONNECTED = "client_disconnected"
"""Outcome of a request whose client left before the end."""
MAX_NAME = 255
"""Characters of a name that the ledger keeps."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What an account is of."""

    request_id: str
    key: str
    kind: str
    model: str
    template: str


@dataclass(slots=True)
class Account:
    """What one request took so far. Times are of `time.monotonic`."""

    subject: Subject
    prices: Prices | None = None
    """Of the teacher that writes; None where there are none."""
    arrived_s: float = field(default_factory=time.monotonic)
    arrived: datetime = field(default_factory=lambda: datetime.now(UTC))
    prompt_tokens: int = 0
    """Of all that the engine was asked: a review that ends in guidance asks twice."""
    cached_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    """Whether a server is to say what was used, and has not."""
    reused: Literal["coalesced", "cached"] | None = None
    """How it was told what another request has computed: then no tokens are its own."""
    reused_tokens: int = 0
    """That it was told so."""
    queue_s: float | None = None
    """In the engine, where that knows."""
    waited_s: float = 0.0
    """For a place there."""
    first_s: float | None = None
    last_s: float | None = None
    outcome: str = field(default=CLIENT_DISCONNECTED)
    reservation: str | None = None
    """What is set aside for it of its key's daily budget."""
    engaged: bool = False
    """Whether a teacher was asked: then it is written down, however it ends."""

    def turn_to(self, model: str, prices: Prices | None) -> None:
        """A teacher is asked, perhaps in the place of one that failed before its first word and is owed nothing."""
        self.subject = replace(self.subject, model=model)
        self.prices = prices
        self.owe_nothing()

    def owe_nothing(self) -> None:
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.estimated = False
        self.queue_s = None

    def told(self, tokens: int) -> None:
        """Its reader was told so many. Those of its own are counted as they are computed."""
        if self.reused:
            self.reused_tokens += tokens
            self.first_s = self.first_s or time.monotonic()

    @property
    def usage(self) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            estimated=self.estimated,
        )

    @property
    def tokens(self) -> int:
        """As limits count them."""
        return self.prompt_tokens + self.completion_tokens

    def timing(self) -> Timing:
        """In milliseconds, as of now."""
        queue_s = self.waited_s + (self.queue_s or 0.0) if self.waited_s or self.queue_s is not None else None
        return Timing(
            queue_ms=None if queue_s is None else round(queue_s * 1000, 3),
            first_token_ms=None if self.first_s is None else round((self.first_s - self.arrived_s) * 1000, 3),
            total_ms=round((time.monotonic() - self.arrived_s) * 1000, 3),
        )


class Books:
    """Closes accounts. Without a ledger only the metrics know of them."""

    def __init__(
        self,
        metrics: CloudMetrics,
        ledger: Ledger | None = None,
        *,
        reused_response_price: Literal["free", "cached"] = "free",
    ) -> None:
        self._shared_price = reused_response_price
        self.metrics = metrics
        self._ledger = ledger

    def take(self, account: Account, piece: Piece) -> None:
        """Add what the teacher has just written."""
        now = time.monotonic()
        account.completion_tokens += piece.count
        if piece.usage:  # whoever is paid by a server's count counts like it
            account.prompt_tokens, account.cached_tokens = piece.usage.prompt_tokens, piece.usage.cached_tokens
            account.completion_tokens, account.estimated = piece.usage.completion_tokens, False
        if not piece.text and not piece.token_ids:
            return
        if account.last_s is None:
            account.first_s = now
            self.metrics.first_token.observe(now - account.arrived_s)
        else:
            self.metrics.inter_token.observe(now - account.last_s)
        account.last_s = now

    def cost_usd(self, account: Account) -> float | None:
        """Of what was computed, by the teacher's prices; None where there are none."""
        return account.prices.cost_usd(account.usage) if account.prices else None

    def reused_nano_usd(self, usage: Usage, prices: Prices | None) -> int:
        """What guidance costs that is told again: nothing, or all of it at the price of cached tokens, as the operator has it."""
        if prices is None or self._shared_price == "free":
            return 0
        tokens = usage.prompt_tokens + usage.completion_tokens
        return prices.nano_usd(Usage(prompt_tokens=tokens, cached_tokens=tokens, completion_tokens=0))

    def reused_cost_usd(self, usage: Usage, prices: Prices | None) -> float | None:
        """The same in dollars; None where there are no prices."""
        return self.reused_nano_usd(usage, prices) / NANO if prices else None

    def close_reused(self, account: Account, prompt_tokens: int) -> asyncio.Future[None]:
        """Write down what was told again, of a generation with such a prompt. As `close`."""
        told = Usage(prompt_tokens=prompt_tokens, completion_tokens=account.reused_tokens)
        nano_usd = self.reused_nano_usd(told, account.prices)
        self.metrics.count_reused(account.reused or "", account.reused_tokens, nano_usd / NANO)
        return self._record(account, nano_usd=nano_usd)

    def close(self, account: Account) -> asyncio.Future[None]:
        """Write down what was computed. It is on the disk once this is awaited, which raises StoreFailed; it need not be."""
        self.metrics.count(
            account.usage, self.cost_usd(account), teacher=account.subject.model, outcome=account.outcome
        )
        return self._record(account, nano_usd=account.prices.nano_usd(account.usage) if account.prices else 0)

    def _record(self, account: Account, *, nano_usd: int) -> asyncio.Future[None]:
        if self._ledger is None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        timing, subject = account.timing(), account.subject
        row = Row(
            id=uuid4().hex,
            request_id=subject.request_id,
            key=subject.key,
            kind=subject.kind,
            model=subject.model[:MAX_NAME],
            template=subject.template[:MAX_NAME],
            day=account.arrived.date(),
            arrived_ms=int(account.arrived.timestamp() * 1000),
            queue_ms=timing.queue_ms,
            first_token_ms=timing.first_token_ms,
            total_ms=timing.total_ms,
            prompt_tokens=account.prompt_tokens,
            cached_tokens=account.cached_tokens,
            completion_tokens=account.completion_tokens,
            reused_tokens=account.reused_tokens,
            finish_reason=account.outcome,
            reused=account.reused,
            cost_nano_usd=nano_usd,
            estimated=account.estimated,
        )
        return self._ledger.record(row, account.reservation)
