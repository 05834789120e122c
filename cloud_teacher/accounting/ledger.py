"""The Ledger protocol: rows of past requests, and reservations of daily budgets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One request, as it ended. `id` is unique; clients may send the same `request_id` twice."""

    id: str
    request_id: str
    key: str
    kind: str
    model: str
    template: str
    day: date
    arrived_ms: int
    queue_ms: float | None
    first_token_ms: float | None
    total_ms: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reused_tokens: int
    finish_reason: str
    reused: str | None
    cost_nano_usd: int
    estimated: bool = False


Budget = Literal["tokens", "money"]


@dataclass(frozen=True, slots=True)
class BudgetRequest:
    """The most that a request can use, and the daily budgets of its key."""

    id: str
    key: str
    day: date
    tokens: int
    nano_usd: int
    daily_tokens: int | None
    daily_nano_usd: int | None


class Ledger(Protocol):
    """A ledger that is open. Every method is called on the event loop."""

    def record(self, row: LedgerRow, reservation: str | None = None) -> asyncio.Future[None]:
        """Write a row and settle its reservation. The future is done once the row is on disk; it raises StoreFailed.

        The row is written even if the future is not awaited.
        """

    async def reserve(self, request: BudgetRequest) -> Budget | None:
        """Reserve part of a daily budget. Returns None, or the budget that has too little left. Raises StoreFailed."""

    def release(self, reservation: str) -> None:
        """Cancel a reservation."""
