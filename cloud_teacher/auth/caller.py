"""Callers and their limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of one key; None is no limit. Tokens are computed prompt and completion tokens together."""

    weight: float = 1.0
    """Share of a full cloud, relative to the weights of other keys that wait."""
    priority: int = 0
    """As in vLLM: lower goes first."""
    max_running: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    daily_tokens: int | None = None
    daily_nano_usd: int | None = None
    """Daily budget in billionths of a dollar."""

    @property
    def has_daily_budget(self) -> bool:
        return self.daily_tokens is not None or self.daily_nano_usd is not None


class Role(StrEnum):
    """Rights of a key beside calling the teacher. Each role includes those before it."""

    VIEWER = "viewer"
    """Read the registry, and the key's own usage."""
    EDITOR = "editor"
    """Push versions, and move labels that are not protected."""
    OPERATOR = "operator"
    """Move protected labels, and read the usage of all keys."""

    def allows(self, needed: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Caller:
    """The key of a request."""

    name: str
    """Name of the key in the ledger and in logs. It is no secret."""
    role: Role = Role.VIEWER
    allowance: Allowance = field(default_factory=Allowance)
