"""What tokens cost, by the operator's own prices."""

from __future__ import annotations

from dataclasses import dataclass

from shared.protocol.guidance import Usage

PER = 1_000_000
NANO = 1_000_000_000
"""A dollar in billionths."""


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens. A prompt token read from the prefix cache has a price of its own."""

    input_usd: float
    cached_input_usd: float
    output_usd: float

    @classmethod
    def of(
        cls, input_usd: float | None, output_usd: float | None, *, cached_input_usd: float | None = None
    ) -> Prices | None:
        """As settings have them: None where one is missing; cached prompt tokens cost what others do unless they have a price."""
        if input_usd is None or output_usd is None:
            return None
        return cls(input_usd, input_usd if cached_input_usd is None else cached_input_usd, output_usd)

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
