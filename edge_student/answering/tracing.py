"""What the edge's spans tell: OpenTelemetry's names for generative models where there are any, ours under `gkt.`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from edge_student.answering.choice import Ended, Finished, Part, Piece
from edge_student.answering.request import Ask
from edge_student.student import Sampling, StudentSequence, Word
from shared.observability.telemetry import Attributes, Span, Telemetry
from shared.protocol.gkt import GktReport


def request_span(telemetry: Telemetry, ask: Ask) -> Span:
    """The span of a request, below its client's own where that names one."""
    operation = "text_completion" if ask.messages is None else "chat"
    attributes: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "gkt",
        "gen_ai.request.model": ask.model,
        "gen_ai.request.max_tokens": ask.sampling.max_tokens,
        "gen_ai.request.temperature": ask.sampling.temperature,
        "gen_ai.request.top_p": ask.sampling.top_p,
        "gen_ai.request.seed": ask.sampling.seed,
        "gen_ai.request.choice.count": ask.n if ask.n > 1 else None,
        "gkt.request_id": ask.request_id,
        "gkt.mode": ask.plan.mode,
        "gkt.policy": ask.plan.policy,
    }
    span = telemetry.span(f"{operation} {ask.model}", "server", ask.headers, attributes)
    span.text("input", ((message.role, message.content) for message in ask.messages or ()))
    return span


class Answered:
    """What the span of a request tells of its answer."""

    def __init__(self, span: Span, n: int) -> None:
        self._span = span
        self._reasons: list[str] = [""] * n
        self._texts = [""] * n
        self._begun = False

    def take(self, part: Part) -> None:
        if not self._span.recording:
            return
        match part:
            case Piece():
                if not self._begun:
                    self._begun = True
                    self._span.event("first_token")
                if self._span.content:
                    self._texts[part.index] += part.text
            case Ended():
                self._reasons[part.index] = part.reason
            case Finished():
                self._span.set(
                    {
                        "gen_ai.usage.input_tokens": part.usage.prompt_tokens,
                        "gen_ai.usage.output_tokens": part.usage.completion_tokens,
                        "gen_ai.usage.cache_read.input_tokens": part.usage.cached_tokens,
                    }
                )

    def end(self, report: GktReport, outcome: str) -> None:
        teacher = report.teacher
        reasons = [reason for reason in self._reasons if reason]
        self._span.set(
            {
                "gen_ai.response.finish_reasons": reasons or None,
                "gkt.outcome": outcome,
                "gkt.fallback": report.fallback,
                "gkt.template": report.template,
                "gkt.cost_usd": report.cost_usd,
                "gkt.student.model": report.student.model,
                "gkt.student.tokens": report.student.completion_tokens,
                "gkt.teacher.model": teacher.model if teacher else None,
                "gkt.teacher.tokens": teacher.completion_tokens if teacher else 0,
                "gkt.teacher.calls": teacher.calls if teacher else 0,
            }
        )
        self._span.text("output", (("assistant", text) for text in self._texts))


def written(sequence: StudentSequence, sampling: Sampling, model: str, within: Span) -> AsyncGenerator[Word, None]:
    """What the student writes in a sequence, with a span of its own where spans are recorded."""
    words = sequence.generate(sampling)
    return _recorded(words, sampling, model, within) if within.recording else words


async def _recorded(
    words: AsyncGenerator[Word, None], sampling: Sampling, model: str, within: Span
) -> AsyncGenerator[Word, None]:
    attributes: Attributes = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "gkt",
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": sampling.max_tokens,
    }
    tokens = 0
    with within.child(f"text_completion {model}", attributes) as span:
        try:
            async with aclosing(words):
                async for word in words:
                    tokens += bool(word.token)
                    if tokens == 1:
                        span.event("first_token")
                    if word.end:
                        span.set({"gen_ai.response.finish_reasons": [word.end]})
                    yield word
        finally:
            span.set({"gen_ai.usage.output_tokens": tokens})
