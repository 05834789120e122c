"""Cost of tokens by the operator's prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from shared.protocol.guidance import Usage

TOKENS_PER_PRICE = 1_000_000
Price = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
NANO = 1_000_000_000
"""Billionths in a dollar."""


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens: prompt tokens, prompt tokens found in the prefix cache, and output tokens."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    input_usd: Price
    cached_input_usd: Price
    output_usd: Price

    @classmethod
    def of(
        cls, input_usd: float | None, output_usd: float | None, *, cached_input_usd: float | None = None
    ) -> Prices | None:
        """Return prices from settings; None if one is missing. Cached prompt tokens have the input price by default."""
        if input_usd is None or output_usd is None:
            return None
        return cls(input_usd, input_usd if cached_input_usd is None else cached_input_usd, output_usd)

    def cost_usd(self, usage: Usage) -> float:
        """Return the cost of a request in dollars."""
        computed = usage.prompt_tokens - usage.cached_tokens
        return (
            computed * self.input_usd
            + usage.cached_tokens * self.cached_input_usd
            + usage.completion_tokens * self.output_usd
        ) / TOKENS_PER_PRICE

    def nano_usd(self, usage: Usage) -> int:
        """Return the cost in whole billionths of a dollar, which add up exactly."""
        return round(self.cost_usd(usage) * NANO)

    def most_nano_usd(self, usage: Usage) -> int:
        """Return the highest possible cost, with any part of the prompt cached."""
        cached = usage.model_copy(update={"cached_tokens": usage.prompt_tokens})
        return max(self.nano_usd(usage), self.nano_usd(cached))
