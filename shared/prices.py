"""What tokens cost, by the operator's own prices."""

from __future__ import annotations

from dataclasses import dataclass

from shared.wire import Usage

PER = 1_000_000


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
