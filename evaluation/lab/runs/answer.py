"""A streamed answer of the edge: its text, the source of each part, and its cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from evaluation.lab.results.rows import Answer, SideTokens
from shared.protocol.gkt import GktReport, Side
from shared.protocol.openai_responses import ChatCompletionChunk, ChatEnd


class RequestFailed(Exception):
    """One request was not answered; others may be. `status` is None if the stream broke."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EdgeAnswer(Answer):
    """A complete answer, with the model that guided it and the tokens' log-probabilities if they were requested."""

    teacher_model: str | None = None
    logprobs: Sequence[float] = ()

    @property
    def confidence(self) -> float:
        """Geometric mean of the tokens' probabilities, 0 to 1; 0 without tokens."""
        return math.exp(sum(self.logprobs) / len(self.logprobs)) if self.logprobs else 0.0


@dataclass
class AnswerBuilder:
    """Accumulates the chunks of a stream."""

    text: list[str] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    first_token_s: float | None = None
    finish: ChatEnd | None = None
    report: GktReport | None = None

    def add(self, chunk: ChatCompletionChunk, at_s: float) -> None:
        if isinstance(chunk.gkt, GktReport):
            self.report = chunk.gkt
        for choice in chunk.choices:
            self.finish = choice.finish_reason or self.finish
            if choice.logprobs:
                self.logprobs += [token.logprob for token in choice.logprobs.content]
            if choice.delta.content:
                self.text.append(choice.delta.content)
                if self.first_token_s is None:
                    self.first_token_s = at_s

    def answer(self, total_s: float) -> EdgeAnswer:
        """Raises RequestFailed if the answer is not complete, or not a text."""
        if self.report is None or self.finish is None:
            raise RequestFailed("the answer has no `gkt` report, or no finish reason; is this an edge of gkt?")
        if self.finish == "tool_calls":
            raise RequestFailed("the answer is a tool call")
        teacher = self.report.teacher or Side(model="")
        return EdgeAnswer(
            output="".join(self.text),
            segments=self.report.segments[0] if self.report.segments else (),
            teacher=_tokens(teacher),
            student=_tokens(self.report.student),
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


def _tokens(side: Side) -> SideTokens:
    return SideTokens(
        prompt=side.prompt_tokens, cached=side.cached_tokens, output=side.completion_tokens, calls=side.calls
    )
