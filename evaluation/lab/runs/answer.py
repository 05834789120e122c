"""A streamed answer of the edge: its text, the source of each part, and its cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.lab.results.rows import Answer, SideTokens
from shared.protocol.gkt import GktReport, Side
from shared.protocol.openai_responses import ChatCompletionChunk


class RequestFailed(Exception):
    """One request was not answered; others may be. `retry_after_s` is set if the edge has no room for it now."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EdgeAnswer(Answer):
    """A complete answer, with the model that guided it and the tokens' log-probabilities if they were requested."""

    teacher_model: str | None = None
    logprobs: Sequence[float] = ()

    @property
    def confidence(self) -> float:
        """Geometric mean of the tokens' probabilities, 0 to 1; 0 without tokens."""
        return math.exp(sum(self.logprobs) / len(self.logprobs)) if self.logprobs else 0.0


def answer_of(chunks: Sequence[tuple[float, ChatCompletionChunk]], total_s: float) -> EdgeAnswer:
    """Return the answer of a stream's chunks, each with its time. Raises RequestFailed if it is incomplete, or not a text."""
    report = next((chunk.gkt for _, chunk in chunks if isinstance(chunk.gkt, GktReport)), None)
    choices = [(at_s, choice) for at_s, chunk in chunks for choice in chunk.choices]
    finish = next((choice.finish_reason for _, choice in choices if choice.finish_reason), None)
    if report is None or finish is None:
        raise RequestFailed("the answer has no `gkt` report, or no finish reason; is this an edge of gkt?")
    if finish == "tool_calls":
        raise RequestFailed("the answer is a tool call")
    texts = [(at_s, choice.delta.content) for at_s, choice in choices if choice.delta.content]
    teacher = report.teacher or Side(model="")
    return EdgeAnswer(
        output="".join(text for _, text in texts),
        segments=report.segments[0] if report.segments else (),
        teacher=_tokens(teacher),
        student=_tokens(report.student),
        first_token_s=texts[0][0] if texts else None,
        total_s=total_s,
        finish=finish,
        template=report.template,
        fallback=report.fallback,
        teacher_model=teacher.model or None,
        bytes_sent=teacher.bytes_sent,
        bytes_received=teacher.bytes_received,
        logprobs=[token.logprob for _, choice in choices if choice.logprobs for token in choice.logprobs.content],
    )


def _tokens(side: Side) -> SideTokens:
    return SideTokens(
        prompt=side.prompt_tokens, cached=side.cached_tokens, output=side.completion_tokens, calls=side.calls
    )
