"""One direction of a link: its delay, bandwidth and faults for all connections, and its count of bytes."""

from __future__ import annotations

import asyncio
from typing import Literal

from wan.link.delay_and_jitter import Delay
from wan.link.faults import ByteTrigger, Fault
from wan.link.token_bucket import TokenBucket


class LinkDirection:
    """State shared by all pipes of a direction. Changes apply at once, to bytes in transit too."""

    def __init__(self, direction: Literal["up", "down"]) -> None:
        self.direction = direction
        self.bytes = 0
        """Bytes that have arrived at the other end."""
        self.delay = Delay()
        self.bucket = TokenBucket()
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.corruption: Fault | None = None
        self.trigger: ByteTrigger | None = None

    def shape(self, *, delay_s: float, jitter_s: float, rate: float | None) -> None:
        """Set delay and jitter of one way, and the rate in bytes per second."""
        self.delay.set(delay_s=delay_s, jitter_s=jitter_s)
        self.bucket.set(rate)

    def flow(self, on: bool) -> None:
        if on:
            self.flowing.set()
        else:
            self.flowing.clear()

    def passed(self, amount_bytes: int) -> None:
        self.bytes += amount_bytes
        if self.trigger:
            self.trigger.count(amount_bytes)
