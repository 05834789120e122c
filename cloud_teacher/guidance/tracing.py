"""What the cloud's spans tell: OpenTelemetry's names for generative models where there are any, ours under `gkt.`."""

from __future__ import annotations

from collections.abc import Mapping

from cloud_teacher.accounting.usage import Account
from cloud_teacher.guidance.generation import Generation
from cloud_teacher.teachers.base import Piece
from shared.observability.telemetry import Attributes, Span, Telemetry
from shared.protocol.guidance import FinishReason, GuidanceRequest, ReviewRequest


def request_span(
    telemetry: Telemetry, request: GuidanceRequest, *, model: str, request_id: str, key: str, trace: Mapping[str, str]
) -> Span:
    """The span of a request, below the edge's call for it."""
    operation = "review" if isinstance(request, ReviewRequest) else "chat"
    attributes: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "gkt",
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": request.max_guidance_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.seed": request.seed,
        "gkt.request_id": request_id,
        "gkt.key": key,
    }
    span = telemetry.span(f"{operation} {model}", "server", trace, attributes)
    span.text("input", ((message.role, message.content) for message in request.messages))
    return span


def end(span: Span, generation: Generation | None, account: Account | None, outcome: str) -> None:
    """A request has ended, however it did."""
    if not span.recording:
        return
    if generation and account:
        usage, timing = generation.account.usage, account.timing()
        first_ms = timing.first_token_ms
        span.set(
            {
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": account.reused_tokens if account.reused else usage.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
                "gen_ai.response.finish_reasons": [outcome] if outcome in list(FinishReason) else None,
                "gen_ai.response.time_to_first_chunk": None if first_ms is None else first_ms / 1000,
                "gen_ai.response.model": account.subject.model,
                "gkt.queue_ms": timing.queue_ms,
                "gkt.template": account.subject.template,
                "gkt.reused": account.reused,
            }
        )
        span.text("output", [("assistant", "".join(one.text for one in generation.items if isinstance(one, Piece)))])
    span.set({"gkt.outcome": outcome})
    span.end()
