"""Faults of a link."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal

from pydantic import Field

from wan.link.conditions import Strict

Direction = Literal["up", "down", "both"]
"""`up` is to the cloud, `down` is from the cloud."""


class FaultKind(StrEnum):
    REFUSE = "refuse"
    """Refuse new connections; live ones continue."""
    STALL = "stall"
    """Hold all bytes silently; none is lost, and all pass after `resume`."""
    CUT = "cut"
    """Close every live connection, drop its bytes in transit, and refuse new ones."""
    RESET = "reset"
    """Reset every live connection (RST) once; new ones are served."""
    CORRUPT = "corrupt"
    """Flip bits."""


class FaultOptions(Strict):
    """Start and direction of a fault."""

    direction: Direction = "both"
    after_bytes: int | None = Field(
        default=None,
        ge=0,
        le=10**15,
        description="Bytes that pass in this direction before the fault starts. If null, it starts now.",
    )


class CorruptOptions(FaultOptions):
    rate: float = Field(default=0.001, gt=0, le=1, description="Fraction of bytes that have a bit flipped.")
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class Fault(CorruptOptions):
    """One fault of a link. Only `corrupt` uses `rate` and `seed`."""

    kind: FaultKind

    def meets(self, direction: Literal["up", "down"]) -> bool:
        return self.direction in {direction, "both"}


class ByteTrigger:
    """Counts bytes down, and starts its fault when the count reaches zero."""

    def __init__(self, fault: Fault, fire: Callable[[Fault], None]) -> None:
        self.fault = fault
        self.left = fault.after_bytes or 0
        self._fire = fire

    def count(self, amount_bytes: int) -> None:
        self.left -= amount_bytes
        if self.left <= 0:
            self._fire(self.fault)
