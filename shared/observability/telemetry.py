"""Traces: what a request did where, and how long that took, as OpenTelemetry spans.

Off by default: then a span is an object that hands on the trace it came with, and no package of OpenTelemetry is imported.
On where the standard variables name an endpoint (`telemetry_from`). The parent of a span is handed on as W3C headers and by
`Span.child`, never by a context variable: answers are async generators, which one task may begin and another one close.
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
"""By the semantic conventions' names. What is None is not there."""

NO_ATTRIBUTES: Attributes = {}
CLOSE_S = 2.0
MAX_STATE_CHARS = 512
"""Of `tracestate`, as W3C has it."""


def trace_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a request's headers those that say which trace it belongs to (W3C Trace Context)."""
    parent, state = headers.get("traceparent", ""), headers.get("tracestate", "")
    if not parent or len(parent) >= 100 or not parent.isascii():
        return {}
    fits = state and len(state) <= MAX_STATE_CHARS and state.isascii()
    return {"traceparent": parent, **({"tracestate": state} if fits else {})}


class Span:
    """A span that nobody records."""

    recording = False
    content = False
    """Whether text is recorded too."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self.headers: dict[str, str] = dict(headers or {})
        """What a call to another service carries, for its spans to belong to this one."""

    def child(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> Span:
        """A part of the work, in this process."""
        return self

    def set(self, attributes: Attributes) -> None:
        """Say more."""

    def event(self, name: str) -> None:
        """Say that something happens now."""

    def fail(self, code: str) -> None:
        """Say that it went wrong, by a code from a closed set."""

    def text(self, side: Literal["input", "output"], messages: Iterable[tuple[str, str]]) -> None:
        """Who said what, as role and text: recorded only where that was switched on."""

    def end(self) -> None:
        """It ends now. Once is enough."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Whoever leaves early or is cancelled did not fail."""
        if isinstance(error, Exception):
            self.fail(error.code if isinstance(error, GktError) else type(error).__name__)
        self.end()


class RecordedSpan(Span):
    """A span of OpenTelemetry's."""

    def __init__(
        self, tracer: Tracer, name: str, kind: Kind, within: Context, attributes: Attributes, *, content: bool
    ) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        super().__init__()
        self._tracer = tracer
        self.content = content
        self._failed = False
        self._span = tracer.start_span(name, within, SpanKind[kind.upper()], _there(attributes))
        self._within = set_span_in_context(self._span)
        TraceContextTextMapPropagator().inject(self.headers, self._within)
        self.recording = self._span.is_recording()
        self.trace_id = f"{self._span.get_span_context().trace_id:032x}"

    def child(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> Span:
        return RecordedSpan(self._tracer, name, "internal", self._within, attributes, content=self.content)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_there(attributes))

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
            told = [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in messages]
            self._span.set_attribute(f"gen_ai.{side}.messages", json.dumps(told, ensure_ascii=False))

    def end(self) -> None:
        if self.recording:
            self.recording = False
            self._span.end()


class Telemetry:
    """Where a service's spans go: to a provider, or nowhere."""

    def __init__(
        self, provider: TracerProvider | None = None, *, endpoint: str | None = None, content: bool = False
    ) -> None:
        """`endpoint` is the URL that traces are exported to; with `content` spans have the text of prompts and answers too."""
        self.endpoint = endpoint
        self._content = content
        self._provider = provider
        self._tracer = provider.get_tracer("gkt") if provider else None

    def span(self, name: str, kind: Kind, parent: Mapping[str, str], attributes: Attributes = NO_ATTRIBUTES) -> Span:
        """Begins a span below the one that the W3C headers in `parent` name; where they name none it begins a trace."""
        if self._tracer is None:
            return Span(parent)
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        within = TraceContextTextMapPropagator().extract(parent)
        span = RecordedSpan(self._tracer, name, kind, within, attributes, content=self._content)
        if request := CURRENT_REQUEST.get():
            request.trace_id = span.trace_id
        return span

    def close(self) -> None:
        """Export what is left, which may take `CLOSE_S`: a collector that is away would hold up the end for longer."""
        if self._provider:
            closing = Thread(target=self._provider.shutdown, name="traces", daemon=True)
            closing.start()
            closing.join(CLOSE_S)


OFF = Telemetry()


def traces_endpoint(environ: Mapping[str, str]) -> str | None:
    """Where OpenTelemetry's standard variables want traces to go over HTTP; None: nowhere."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    if own := environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return own
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/traces" if base else None


def telemetry_from(environ: Mapping[str, str], service: str, *, content: bool = False) -> Telemetry:
    """Traces as the environment wants them, under a service's name unless it has another (OTEL_SERVICE_NAME).

    Who cannot export them says so and works without: an answer is worth more than its trace.
    """
    endpoint = traces_endpoint(environ)
    if endpoint is None:
        return OFF
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {None, "", "http/protobuf"}:
        logger.warning("no traces: OTLP goes over http/protobuf here, not %s", protocol)
        return OFF
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        logger.warning("no traces: %s; pip install 'gkt[telemetry]'", error)
        return OFF
    resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    # For engines that make spans in this process: they go where ours go.
    trace.set_tracer_provider(provider)
    logger.info("traces go to %s", endpoint)
    return Telemetry(provider, endpoint=endpoint, content=content)


def _there(attributes: Attributes) -> dict[str, str | bool | int | float | Sequence[str]]:
    return {name: value for name, value in attributes.items() if value is not None}
