"""A streamed answer of the edge, as it grows and as a whole: the text, who wrote what, and what it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from evaluation.lab.results.rows import SideTokens
from shared.protocol.gkt import Segment
from shared.protocol.guidance import ErrorBody
from shared.protocol.openai import Logprobs


class RequestFailed(Exception):
    """One request was not answered; others may be. `status` is None where the stream broke."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _Tolerant(BaseModel):
    """What newer edges say besides is left alone, and what older ones do not say is nothing."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Side(_Tolerant):
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    calls: int | None = None
    bytes_sent: int = 0
    bytes_received: int = 0

    def tokens(self) -> SideTokens:
        asked = bool(self.prompt_tokens or self.completion_tokens)
        return SideTokens(
            prompt=self.prompt_tokens,
            cached=self.cached_tokens,
            output=self.completion_tokens,
            calls=int(asked) if self.calls is None else self.calls,
        )


class _Report(_Tolerant):
    segments: list[list[Segment]]
    student: _Side
    teacher: _Side | None = None
    template: str | None = None
    fallback: str | None = None


class _Delta(_Tolerant):
    content: str | None = None


class _Choice(_Tolerant):
    delta: _Delta = _Delta()
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class _Chunk(_Tolerant):
    choices: list[_Choice]
    gkt: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """A whole answer. Seconds from the request's start; bytes between edge and cloud."""

    text: str
    segments: Sequence[Segment]
    teacher: SideTokens
    student: SideTokens
    first_token_s: float | None
    total_s: float
    finish: Literal["stop", "length"]
    template: str | None = None
    fallback: str | None = None
    teacher_model: str | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    logprobs: Sequence[float] = ()

    @property
    def confidence(self) -> float:
        """The geometric mean of the tokens' probabilities, 0 to 1; 0 where there are none."""
        return math.exp(sum(self.logprobs) / len(self.logprobs)) if self.logprobs else 0.0


@dataclass
class Growing:
    """What has come of a stream."""

    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    first_token_s: float | None = None
    finish: Literal["stop", "length"] | None = None
    report: _Report | None = None

    def take(self, data: str, at_s: float) -> None:
        """Raises RequestFailed for an error of the edge's, and for what is no part of an answer."""
        try:
            chunk = _Chunk.model_validate_json(data)
            if chunk.gkt and "segments" in chunk.gkt:
                self.report = _Report.model_validate(chunk.gkt)
        except ValidationError:
            raise RequestFailed(said_by(data.encode()) or "the edge sent what is no part of an answer") from None
        for choice in chunk.choices:
            self.finish = choice.finish_reason or self.finish
            if choice.logprobs:
                self.logprobs += [token.logprob for token in choice.logprobs.content]
            if choice.delta.content:
                self.text.append(choice.delta.content)
                if self.first_token_s is None:
                    self.first_token_s = at_s

    def answer(self, total_s: float) -> Answer:
        if self.report is None or self.finish is None:
            raise RequestFailed("the answer has no `gkt` report, or no finish reason; is this an edge of gkt?")
        teacher = self.report.teacher or _Side()
        return Answer(
            text="".join(self.text),
            segments=self.report.segments[0] if self.report.segments else (),
            teacher=teacher.tokens(),
            student=self.report.student.tokens(),
            first_token_s=self.first_token_s,
            total_s=total_s,
            finish=self.finish,
            template=self.report.template,
            fallback=self.report.fallback,
            teacher_model=teacher.model or None,
            bytes_sent=teacher.bytes_sent,
            bytes_received=teacher.bytes_received,
            logprobs=self.logprobs,
        )


def said_by(body: bytes) -> str | None:
    """The message of an error in OpenAI's shape, or None where it is none."""
    try:
        return ErrorBody.model_validate_json(body).error.message
    except ValidationError:
        return None
