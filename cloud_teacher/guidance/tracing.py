"""Attributes of the cloud's spans: OpenTelemetry's names for generative models if there are any, others under `gkt.`."""

from __future__ import annotations

from collections.abc import Mapping

from cloud_teacher.accounting.usage import UsageRecord
from cloud_teacher.guidance.job import GuidanceJob
from shared.observability.telemetry import Attributes, Span, Telemetry
from shared.protocol.guidance import FinishReason, Guidance, GuidanceRequest, ReviewRequest


def request_span(telemetry: Telemetry, request: GuidanceRequest, record: UsageRecord, trace: Mapping[str, str]) -> Span:
    """Start the span of a request, below the edge's span of the call."""
    operation = "review" if isinstance(request, ReviewRequest) else "chat"
    attributes: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "gkt",
        "gen_ai.request.model": record.model,
        "gen_ai.request.max_tokens": request.max_guidance_tokens,
        "gen_ai.request.temperature": request.temperature,
        "gen_ai.request.top_p": request.top_p,
        "gen_ai.request.seed": request.seed,
        "gkt.request_id": record.request_id,
        "gkt.key": record.key,
    }
    span = telemetry.span(f"{operation} {record.model}", "server", trace, attributes)
    span.text("input", ((message.role, message.content) for message in request.messages))
    return span


def end_request_span(span: Span, job: GuidanceJob | None, outcome: str) -> None:
    """End the span of a request. Without a job the request was rejected at once."""
    if not span.recording:
        return
    if job:
        record, timing = job.record, job.record.timing()
        usage, first_ms = record.response_usage, timing.first_token_ms
        span.set(
            {
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": record.reused_tokens if record.reused else usage.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
                "gen_ai.response.finish_reasons": [outcome] if outcome in list(FinishReason) else None,
                "gen_ai.response.time_to_first_chunk": None if first_ms is None else first_ms / 1000,
                "gen_ai.response.model": record.model,
                "gkt.queue_ms": timing.queue_ms,
                "gkt.template": record.template,
                "gkt.reused": record.reused,
            }
        )
        span.text("output", [("assistant", "".join(one.text for one in job.events if isinstance(one, Guidance)))])
    span.set({"gkt.outcome": outcome})
    span.end()
