"""What tokens cost, by the operator's own prices."""

from __future__ import annotations

from dataclasses import dataclass

from shared.wire import Usage

PER = 1_000_000
NANO = 1_000_000_000
"""A dollar in billionths."""


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens. A prompt token read from the prefix cache has a price of its own."""

    input_usd: float
    cached_input_usd: float
    output_usd: float

    def cost_usd(self, usage: Usage) -> float:
        """What a request cost, in dollars."""
        computed = usage.prompt_tokens - usage.cached_tokens
        return (
            computed * self.input_usd
            + usage.cached_tokens * self.cached_input_usd
            + usage.completion_tokens * self.output_usd
        ) / PER

    def nano_usd(self, usage: Usage) -> int:
        """The same in whole billionths of a dollar, which add up exactly."""
        return round(self.cost_usd(usage) * NANO)

    def most_nano_usd(self, usage: Usage) -> int:
        """The most it can come to, whatever of the prompt turns out to be cached."""
        cached = usage.model_copy(update={"cached_tokens": usage.prompt_tokens})
        return max(self.nano_usd(usage), self.nano_usd(cached))
