"""The result of one question under one arm: statistics and reports are computed from these rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.prices import Prices
from shared.protocol.gkt import Segment
from shared.protocol.guidance import Usage


class LabModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SideTokens(LabModel):
    """Tokens of one side for one question, in its own vocabulary. `calls` are requests to it."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    calls: int = 0

    def cost_usd(self, prices: Prices) -> float:
        return prices.cost_usd(
            Usage(prompt_tokens=self.prompt, cached_tokens=self.cached, completion_tokens=self.output)
        )


class Answer(LabModel):
    """The part of a row that the edge's answer fills. Times are seconds from the request's start at the client."""

    output: str = ""
    segments: Sequence[Segment] = Field(default=(), description="the source of each part of `output`, in order")
    teacher: SideTokens = SideTokens()
    student: SideTokens = SideTokens()
    template: str | None = Field(default=None, description="`name@version#hash` of the guidance template")
    fallback: str | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    bytes_sent: int = Field(default=0, description="from the edge to the cloud, bodies only")
    bytes_received: int = 0
    finish: Literal["stop", "length"] | None = None


class Row(Answer):
    """One question under one arm.

    `correct` is None if there is no verdict: the request failed (`error`), or no judge has compared the answer yet. An answer
    that cannot be read (`extracted` is None) is wrong, and also counted as `no answer`.
    """

    task: str
    question_id: str
    arm: str
    correct: bool | None
    score: float | None = Field(default=None, description="0 to 1, if a task scores more finely than right and wrong")
    extracted: str | None = None
    target: str | None = None
    question: str = ""
    error: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Identity of the question, the same under every arm."""
        return self.task, self.question_id


Arms = Mapping[str, Mapping[str, Row]]
"""Rows of one task, by arm and question."""


def verdicts(arms: Arms, *names: str) -> list[list[bool | None]]:
    """Return each named arm's verdicts on the questions that all of them have a row for, in the first arm's order."""
    first, *others = (arms[name] for name in names)
    questions = [question for question in first if all(question in other for other in others)]
    return [[arms[name][question].correct for question in questions] for name in names]
