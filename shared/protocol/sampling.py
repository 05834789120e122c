"""Sampling options of both models, and the types of their values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MAX_STOPS = 16
"""Stop strings a request may carry. OpenAI allows 4."""


def _token_ids(bias: dict[str, float]) -> dict[str, float]:
    for token in bias:
        if not (token.isascii() and token.isdigit() and len(token) <= 9):
            raise ValueError(f"expected token ids as strings in the keys; got {token[:20]!r}")
    return bias


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _sane_stops(stops: list[str]) -> list[str]:
    if not all(0 < len(stop) <= 1000 for stop in stops):
        raise ValueError("expected stop strings of 1 to 1,000 characters")
    return stops


Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
TopK = Annotated[int, Field(ge=-1, le=10_000_000, description="number of tokens to choose among; 0 and -1 mean all")]
MinP = Annotated[float, Field(ge=0, le=1, description="lowest probability, as a fraction of the most probable token's")]
Penalty = Annotated[float, Field(ge=-2, le=2)]
RepetitionPenalty = Annotated[
    float, Field(gt=0, le=100, description="penalty over prompt and answer, as in vLLM; 1 is none")
]
Bias = Annotated[float, Field(ge=-100, le=100)]
LogitBias = Annotated[dict[str, Bias], Field(max_length=1000), AfterValidator(_token_ids)]
Stops = Annotated[list[str], Field(max_length=MAX_STOPS), BeforeValidator(_as_list), AfterValidator(_sane_stops)]

BEYOND_OPENAI = frozenset({"top_k", "min_p", "repetition_penalty"})
"""Options of vLLM that OpenAI's own API rejects."""


class SamplingParams(BaseModel):
    """Options for the choice of the next token, under vLLM's names. A temperature of 0 is greedy decoding.

    Every message and class with sampling options inherits this one. A new option is declared here; teachers pass it on by its
    name, and `edge_student.llama.sampling` builds a sampler for it.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    temperature: Temperature = 0.0
    top_p: Probability = 1.0
    top_k: TopK = 0
    min_p: MinP = 0.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    seed: Seed | None = None

    def sampling_options(self) -> dict[str, Any]:
        """Return the options of this class by name, without those of subclasses. Any `top_k` below 1 becomes 0."""
        options = {name: getattr(self, name) for name in SamplingParams.model_fields}
        return options | {"top_k": max(self.top_k, 0)}
