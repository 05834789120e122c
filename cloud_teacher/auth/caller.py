"""Who calls, and how much they may."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of one key; None where there is none. Tokens are prompt and completion together, as the engine computes them."""

    weight: float = 1.0
    """Its share of a full cloud, beside the weights of others who wait."""
    priority: int = 0
    """As vLLM's: lower goes first."""
    max_running: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    daily_tokens: int | None = None
    daily_nano_usd: int | None = None
    """Billionths of a dollar."""

    @property
    def has_daily_budget(self) -> bool:
        return self.daily_tokens is not None or self.daily_nano_usd is not None


class Role(StrEnum):
    """What a key may do beside calling the teacher. Each role includes those before it."""

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
    """Whose key a request came with."""

    name: str
    """Fit for logs, and the ledger's name for it."""
    role: Role = Role.VIEWER
    """May see what others used."""
    allowance: Allowance = field(default_factory=Allowance)
