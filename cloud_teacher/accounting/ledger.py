"""What the service has written down, as a database takes it: rows of the ledger, and what is set aside of daily budgets."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import date
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Row:
    """One stream, as it ended. `id` is ours and unique; `request_id` may be the caller's own, and come twice."""

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


Spent = Literal["tokens", "money"]
"""The budget that is used up."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request may come to at most, and what its key may use that day."""

    id: str
    key: str
    day: date
    tokens: int
    nano_usd: int
    daily_tokens: int | None
    daily_nano_usd: int | None


class Ledger(Protocol):
    """A ledger that is open. Every method is called on the event loop."""

    def record(self, row: Row, reservation: str | None = None) -> asyncio.Future[None]:
        """Write a row and settle its reservation. It is on the disk once this is awaited, which raises StoreFailed.

        It is written whether or not anybody awaits it.
        """

    async def reserve(self, asked: Asked) -> Spent | None:
        """Set aside what a request can come to; which budget does not have it, if one has not. Raises StoreFailed."""

    def release(self, reservation: str) -> None:
        """A reservation came to nothing."""
