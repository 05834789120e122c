"""What can go wrong with a link."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal

from pydantic import Field

from wan.link.conditions import Strict

Direction = Literal["up", "down", "both"]
"""To the cloud, from the cloud."""


class FaultKind(StrEnum):
    REFUSE = "refuse"
    """New connections are refused; those that live go on."""
    STALL = "stall"
    """No bytes pass, and nobody is told. Nothing is lost: they pass on `resume`."""
    CUT = "cut"
    """Every live connection is closed, what is under way on it is lost, and new ones are refused."""
    RESET = "reset"
    """Every live connection is reset (RST). That is all: new ones are served."""
    CORRUPT = "corrupt"
    """Bits are flipped."""


class FaultOptions(Strict):
    """When a fault begins, and in which direction."""

    direction: Direction = "both"
    after_bytes: int | None = Field(
        default=None, ge=0, le=10**15, description="let exactly so many bytes pass first in this direction; null: now"
    )


class CorruptOptions(FaultOptions):
    rate: float = Field(default=0.001, gt=0, le=1, description="of all bytes, so many have a bit flipped")
    seed: int = Field(default=0, ge=0, le=2**63 - 1)


class Fault(CorruptOptions):
    """One fault of a link. `rate` and `seed` mean something for `corrupt` only."""

    kind: FaultKind

    def meets(self, direction: Literal["up", "down"]) -> bool:
        return self.direction in {direction, "both"}


class Fuse:
    """Counts the bytes that may still pass, and then fires once."""

    def __init__(self, fault: Fault, fire: Callable[[Fault], None]) -> None:
        self.fault = fault
        self.left = fault.after_bytes or 0
        self._fire = fire

    def burn(self, amount_bytes: int) -> None:
        self.left -= amount_bytes
        if self.left <= 0:
            self._fire(self.fault)
