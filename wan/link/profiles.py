"""Named profiles of links, from `profiles.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from shared.errors import NotFound
from wan.link.conditions import Conditions
from wan.link.faults import FaultKind


class UnknownProfile(NotFound):
    code = "profile_not_found"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    latency: str | None = None
    jitter: str | None = None
    up: str | None = None
    down: str | None = None

    def conditions(self) -> Conditions:
        return Conditions().changed(latency=self.latency, jitter=self.jitter, up=self.up, down=self.down)


class _Phase(_Entry):
    stalled: bool = False
    seconds: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Phase(NamedTuple):
    """State of a link for a number of seconds."""

    seconds: float
    conditions: Conditions
    stalled: bool


class Profile(_Entry):
    """The whole state of a link: its conditions and its fault. If it has phases, they follow each other without end."""

    name: str
    summary: str
    fault: FaultKind | None = None
    kinds: tuple[_Phase, ...] = Field(default=(), alias="phases")

    def phases(self, seed: int) -> Iterator[Phase]:
        """Yield phases without end, the same for the same seed; none if the profile has none. A stall keeps the conditions."""
        random = Random(seed)  # noqa: S311 - phases, not a key
        last: _Phase | None = None
        conditions = next((kind.conditions() for kind in self.kinds if not kind.stalled), Conditions())
        while self.kinds:
            last = random.choice([kind for kind in self.kinds if kind is not last] or self.kinds)
            if not last.stalled:
                conditions = last.conditions()
            yield Phase(round(random.uniform(*last.seconds), 3), conditions, last.stalled)


def _load() -> Mapping[str, Profile]:
    entries: dict[str, Any] = tomllib.loads((Path(__file__).parent / "profiles.toml").read_text())
    return {name: Profile(name=name, **entry) for name, entry in entries.items()}


PROFILES = _load()


def profile(name: str) -> Profile:
    """Return a profile by its name. Raises UnknownProfile."""
    if name not in PROFILES:
        raise UnknownProfile(f"profile {name!r} not found; available profiles: {', '.join(PROFILES)}", param="name")
    return PROFILES[name]
