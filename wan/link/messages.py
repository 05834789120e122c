"""Responses of the control API."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shared.protocol.guidance import WireModel
from wan.link.conditions import Conditions, Strict
from wan.link.faults import Fault, FaultKind

Count = Annotated[int, Field(ge=0)]


class LinkState(WireModel):
    """The current state of a link, and its counts since the start."""

    name: str
    listens: str
    to: str
    profile: str | None
    conditions: Conditions
    fault: Fault | None = Field(description="Active fault.")
    armed: Fault | None = Field(description="Fault that starts after `after_bytes` more bytes.")
    stalled: bool = Field(description="Whether a fault or the profile holds the bytes of at least one direction.")
    bytes_up: Count = Field(description="Bytes that arrived at the target.")
    bytes_down: Count = Field(description="Bytes that arrived at clients.")
    under_way: Count = Field(description="Bytes in transit.")
    live: Count = Field(description="Open connections.")
    opened: Count = Field(description="Connections since the start.")
    unreachable: Count = Field(description="Connections that were reset because the target could not be reached.")
    faults: dict[FaultKind, Count] = Field(description="Number of starts of each fault, stalls of a profile included.")


class Links(WireModel):
    links: list[LinkState]


class ProfileChoice(Strict):
    name: str = Field(min_length=1, max_length=100)
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
