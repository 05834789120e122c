"""What the control API says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.protocol.guidance import WireModel
from wan.link.conditions import Conditions, Strict
from wan.link.faults import Fault, FaultKind

Count = Annotated[int, Field(ge=0)]


class LinkState(WireModel):
    """A link as it is now, and what it has carried since it began."""

    name: str
    listens: str
    to: str
    profile: str | None
    conditions: Conditions
    fault: Fault | None = Field(description="the standing one")
    armed: Fault | None = Field(description="one that begins after so many bytes more")
    stalled: bool = Field(description="by a fault or by the profile, in one direction at least")
    bytes_up: Count = Field(description="that arrived at the target")
    bytes_down: Count = Field(description="that arrived at clients")
    under_way: Count = Field(description="bytes on the link now")
    live: Count = Field(description="connections now")
    opened: Count = Field(description="connections ever")
    unreachable: Count = Field(description="connections that were reset because the target could not be reached")
    faults: dict[FaultKind, Count] = Field(description="how often each has begun, a profile's stalls included")


class Links(WireModel):
    links: list[LinkState]


class ProfileChoice(Strict):
    name: str = Field(min_length=1, max_length=100)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
