"""Traces of requests as OpenTelemetry spans.

Tracing is off by default: a span then only passes on the headers of its request, and no OpenTelemetry package is imported.
`telemetry_from` turns it on if the standard variables name an endpoint. The parent of a span is passed on as W3C headers and by
`Span.child`, not by a context variable, because answers are async generators: one task may begin one, and another close it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from shared.errors import GktError
from shared.observability.logs import CURRENT_REQUEST

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

logger = logging.getLogger("gkt.telemetry")

Kind = Literal["server", "client", "internal"]
Attributes = Mapping[str, str | bool | int | float | Sequence[str] | None]
"""Attributes under the names of the semantic conventions. None values are left out."""

NO_ATTRIBUTES: Attributes = {}
CLOSE_S = 2.0
MAX_STATE_CHARS = 512
"""Upper bound of `tracestate`, from W3C Trace Context."""


def trace_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a request that name its trace (W3C Trace Context)."""
    parent, state = headers.get("traceparent", ""), headers.get("tracestate", "")
    if not parent or len(parent) >= 100 or not parent.isascii():
        return {}
    fits = state and len(state) <= MAX_STATE_CHARS and state.isascii()
    return {"traceparent": parent, **({"tracestate": state} if fits else {})}


class Span:
    """A span that is not recorded."""

    recording = False
    content = False
    """If set, `text` records prompts and answers."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self.headers: dict[str, str] = dict(headers or {})
        """Headers for calls to other services, so that their spans become children of this one."""

    def child(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> Span:
        """Begin a child span in this process."""
        return self

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def event(self, name: str) -> None:
        """Record an event at the current time."""

    def fail(self, code: str) -> None:
        """Mark the span as failed, by a code from a closed set."""

    def text(self, side: Literal["input", "output"], messages: Iterable[tuple[str, str]]) -> None:
        """Record messages, as role and text, if `content` is set."""

    def end(self) -> None:
        """End the span. Later calls have no effect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the span, as failed if an Exception was raised. Cancellation and early exits are not failures."""
        if isinstance(error, Exception):
            self.fail(error.code if isinstance(error, GktError) else type(error).__name__)
        self.end()


class RecordedSpan(Span):
    """A span of OpenTelemetry."""

    def __init__(
        self, tracer: Tracer, name: str, kind: Kind, within: Context, attributes: Attributes, *, content: bool
    ) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        super().__init__()
        self._tracer = tracer
        self.content = content
        self._failed = False
        self._span = tracer.start_span(name, within, SpanKind[kind.upper()], _present(attributes))
        self._within = set_span_in_context(self._span)
        TraceContextTextMapPropagator().inject(self.headers, self._within)
        self.recording = self._span.is_recording()
        self.trace_id = f"{self._span.get_span_context().trace_id:032x}"

    def child(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> Span:
        return RecordedSpan(self._tracer, name, "internal", self._within, attributes, content=self.content)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_present(attributes))

    def event(self, name: str) -> None:
        self._span.add_event(name)

    def fail(self, code: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        if not self._failed:
            self._failed = True
            self._span.set_attribute("error.type", code)
            self._span.set_status(Status(StatusCode.ERROR))

    def text(self, side: Literal["input", "output"], messages: Iterable[tuple[str, str]]) -> None:
        if self.content and self.recording:
            recorded = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in messages]
            self._span.set_attribute(f"gen_ai.{side}.messages", json.dumps(recorded, ensure_ascii=False))

    def end(self) -> None:
        if self.recording:
            self.recording = False
            self._span.end()


class Telemetry:
    """Creates the spans of a service. Without a provider they are not recorded."""

    def __init__(
        self, provider: TracerProvider | None = None, *, endpoint: str | None = None, content: bool = False
    ) -> None:
        """`endpoint` is the URL of the exporter. With `content`, spans include the text of prompts and answers."""
        self.endpoint = endpoint
        self._content = content
        self._provider = provider
        self._tracer = provider.get_tracer("gkt") if provider else None

    def span(self, name: str, kind: Kind, parent: Mapping[str, str], attributes: Attributes = NO_ATTRIBUTES) -> Span:
        """Begin a span as a child of the one in the W3C headers `parent`, or a new trace if they name none."""
        if self._tracer is None:
            return Span(parent)
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        within = TraceContextTextMapPropagator().extract(parent)
        span = RecordedSpan(self._tracer, name, kind, within, attributes, content=self._content)
        if request := CURRENT_REQUEST.get():
            request.trace_id = span.trace_id
        return span

    def close(self) -> None:
        """Export the remaining spans within `CLOSE_S`, because an unreachable collector would delay the exit for longer."""
        if self._provider:
            closing = Thread(target=self._provider.shutdown, name="traces", daemon=True)
            closing.start()
            closing.join(CLOSE_S)


OFF = Telemetry()


def traces_endpoint(environ: Mapping[str, str]) -> str | None:
    """Return the URL for traces from OpenTelemetry's standard variables; None if they turn tracing off."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if own := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return own
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/traces" if base else None


def telemetry_from(environ: Mapping[str, str], service: str, *, content: bool = False) -> Telemetry:
    """Create the telemetry that the environment asks for. `service` is the name unless OTEL_SERVICE_NAME is set.

    If traces cannot be exported, log a warning and continue without them.
    """
    endpoint = traces_endpoint(environ)
    if endpoint is None:
        return OFF
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {None, "", "http/protobuf"}:
        logger.warning("no traces: the OTLP protocol is %s; only http/protobuf is supported", protocol)
        return OFF
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning("no traces: %s. Install the exporter with: pip install 'gkt[telemetry]'", error)
        return OFF
    resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    # Engines that create spans in this process export them the same way.
    trace.set_tracer_provider(provider)
    logger.info("traces go to %s", endpoint)
    return Telemetry(provider, endpoint=endpoint, content=content)


def _present(attributes: Attributes) -> dict[str, str | bool | int | float | Sequence[str]]:
    return {name: value for name, value in attributes.items() if value is not None}
