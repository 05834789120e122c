"""Spans of answers. Attribute names are OpenTelemetry's for generative models, or start with `gkt.` if it has none."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from edge_student.answering.choice import ChoiceEnded, Finished, Part, TextPart
from edge_student.answering.request import AnswerRequest
from edge_student.student import StudentSampling, StudentSequence, TokenOutput
from shared.observability.telemetry import Attributes, Span, Telemetry
from shared.protocol.gkt import GktReport


def request_span(telemetry: Telemetry, request: AnswerRequest) -> Span:
    """Return the span of a request. Its parent is the client's span if the headers name one."""
    operation = "text_completion" if request.messages is None else "chat"
    attributes: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "gkt",
        "gen_ai.request.model": request.model,
        "gen_ai.request.max_tokens": request.sampling.max_tokens,
        "gen_ai.request.temperature": request.sampling.temperature,
        "gen_ai.request.top_p": request.sampling.top_p,
        "gen_ai.request.seed": request.sampling.seed,
        "gen_ai.request.choice.count": request.n if request.n > 1 else None,
        "gkt.request_id": request.request_id,
        "gkt.mode": request.policy.mode,
        "gkt.policy": request.policy.file,
    }
    span = telemetry.span(f"{operation} {request.model}", "server", request.headers, attributes)
    span.text("input", ((message.role, message.content) for message in request.messages or ()))
    return span


class AnswerSpan:
    """Adds an answer's parts and its report to the span of its request."""

    def __init__(self, span: Span, n: int) -> None:
        self._span = span
        self._reasons: list[str] = [""] * n
        self._texts = [""] * n
        self._begun = False

    def add(self, part: Part) -> None:
        if not self._span.recording:
            return
        match part:
            case TextPart():
                if not self._begun:
                    self._begun = True
                    self._span.event("first_token")
                if self._span.content:
                    self._texts[part.index] += part.text
            case ChoiceEnded():
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


def traced_tokens(
    sequence: StudentSequence, sampling: StudentSampling, model: str, within: Span
) -> AsyncGenerator[TokenOutput, None]:
    """Decode in a sequence, with a span of its own if spans are recorded."""
    tokens = sequence.generate(sampling)
    return _recorded(tokens, sampling, model, within) if within.recording else tokens


async def _recorded(
    tokens: AsyncGenerator[TokenOutput, None], sampling: StudentSampling, model: str, within: Span
) -> AsyncGenerator[TokenOutput, None]:
    attributes: Attributes = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "gkt",
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": sampling.max_tokens,
    }
    count = 0
    with within.child(f"text_completion {model}", attributes) as span:
        try:
            async with aclosing(tokens):
                async for token in tokens:
                    count += bool(token.token)
                    if count == 1:
                        span.event("first_token")
                    if token.end:
                        span.set({"gen_ai.response.finish_reasons": [token.end]})
                    yield token
        finally:
            span.set({"gen_ai.usage.output_tokens": count})
