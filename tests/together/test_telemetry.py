"""Traces across both services, each with a provider of its own, over real HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cloud_teacher.app import create_app as create_cloud
from cloud_teacher.config.settings import CloudSettings
from edge_student.app import create_app as create_edge
from edge_student.settings import EdgeSettings
from shared.observability.telemetry import OFF, Telemetry, telemetry_from, trace_headers, traces_endpoint
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.edge_student.fakes import ScriptedStudent
from tests.running import serving

SECRET = "the-secret-question"
CLIENT_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = {"traceparent": f"00-{CLIENT_TRACE}-b7ad6b7169203331-01", "tracestate": "vendor=1"}


class Side:
    """One service's spans, kept as they end."""

    def __init__(self, *, content: bool = False) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(provider, content=content)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans if span.name == name]
        return span


class Pair:
    """Both services with scripted models, and the spans that they recorded, complete when `pair` ends."""

    def __init__(self, *, content: bool = False) -> None:
        self.edge, self.cloud = Side(content=content), Side(content=content)
        self.teacher = ScriptedTeacher(" an", " utterance", " by", " both")
        self.student = ScriptedStudent(" and", " so", " on")

    @asynccontextmanager
    async def client(self, *, traced: bool = True, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
        cloud = create_cloud(CloudSettings(), teacher=self.teacher, telemetry=self.cloud.telemetry if traced else OFF)
        async with serving(cloud) as url:
            edge = create_edge(
                EdgeSettings(cloud_url=url, **{"max_guidance_tokens": 2, **settings}),
                student=self.student,
                telemetry=self.edge.telemetry if traced else OFF,
            )
            async with serving(edge) as edge_url, httpx.AsyncClient(base_url=edge_url) as client:
                yield client


QUESTION = {"model": "gkt", "max_tokens": 9, "messages": [{"role": "user", "content": SECRET}]}


async def ask(client: httpx.AsyncClient, headers: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json={**QUESTION, **more}, headers=headers)
    answer: dict[str, Any] = response.json()
    return answer


def context_of(span: ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    assert context
    return context.trace_id, context.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.parent
    return span.parent.trace_id, span.parent.span_id


async def test_both_services_are_one_trace_below_the_clients_own_span() -> None:
    pair = Pair()
    async with pair.client() as client:
        await ask(client, CLIENT)
    request, call = pair.edge.named("chat gkt"), pair.edge.named("POST /v1/guidance")
    writing, guidance = pair.edge.named("text_completion scripted-student"), pair.cloud.named("chat scripted-teacher")
    assert {context_of(span)[0] for span in [*pair.edge.spans, *pair.cloud.spans]} == {int(CLIENT_TRACE, 16)}
    assert parent_of(request) == (int(CLIENT_TRACE, 16), 0xB7AD6B7169203331)
    assert parent_of(call) == context_of(request)
    assert parent_of(writing) == context_of(request)
    assert parent_of(guidance) == context_of(call)
    assert [request.kind.name, call.kind.name, writing.kind.name, guidance.kind.name] == [
        "SERVER",
        "CLIENT",
        "INTERNAL",
        "SERVER",
    ]
    # The headers that the engine gets make its spans children of the guidance span.
    (hints,) = pair.teacher.hints
    trace, parent = context_of(guidance)
    assert hints.trace == {"traceparent": f"00-{trace:032x}-{parent:016x}-01", "tracestate": "vendor=1"}


async def test_spans_tell_what_the_answer_tells() -> None:
    pair = Pair()
    async with pair.client() as client:
        answer = await ask(client)
    edge, cloud = pair.edge.named("chat gkt"), pair.cloud.named("chat scripted-teacher")
    said = edge.attributes
    assert said
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.model"] == "gkt"
    assert said["gen_ai.request.max_tokens"] == 9
    assert said["gen_ai.usage.input_tokens"] == answer["usage"]["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"]
    assert said["gen_ai.response.finish_reasons"] == (answer["choices"][0]["finish_reason"],)
    assert said["gkt.mode"] == "fixed"
    assert said["gkt.teacher.tokens"] == answer["gkt"]["teacher"]["completion_tokens"] > 0
    assert said["gkt.student.tokens"] == answer["gkt"]["student"]["completion_tokens"] > 0
    assert said["gkt.request_id"] == answer["gkt"]["request_id"]
    assert "gkt.fallback" not in said
    assert [event.name for event in edge.events] == ["first_token"]
    told = cloud.attributes
    assert told
    assert told["gkt.request_id"] == answer["gkt"]["request_id"]
    assert told["gen_ai.usage.input_tokens"] == answer["gkt"]["teacher"]["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == 2
    assert told["gen_ai.usage.cache_read.input_tokens"] == 4
    assert told["gen_ai.response.finish_reasons"] == ("budget",)
    assert told["gkt.queue_ms"] >= 2  # type: ignore[operator]
    assert told["gen_ai.response.time_to_first_chunk"] > 0  # type: ignore[operator]
    assert [event.name for event in cloud.events] == ["admitted", "first_token"]
    assert (pair.edge.named("POST /v1/guidance").attributes or {})["http.response.status_code"] == 200


def texts(pair: Pair) -> str:
    return "".join(span.to_json() for span in [*pair.edge.spans, *pair.cloud.spans])


async def test_spans_have_no_text_unless_that_is_wanted() -> None:
    silent, open_ = Pair(), Pair(content=True)
    for pair in (silent, open_):
        async with pair.client() as client:
            answer = await ask(client)
            text = answer["choices"][0]["message"]["content"]
            await ask(client, model="gkt-student", max_tokens=1)
    assert SECRET not in texts(silent)
    assert "utterance" not in texts(silent)
    assert "utterance" in texts(open_)
    attributes = open_.edge.spans[-1].attributes or {}
    assert json.loads(str(attributes["gen_ai.input.messages"]))[0]["parts"][0]["content"] == SECRET
    guided = next(span for span in open_.edge.spans if (span.attributes or {}).get("gkt.mode") == "fixed")
    output = json.loads(str((guided.attributes or {})["gen_ai.output.messages"]))
    assert output[0]["parts"][0]["content"] == text


@pytest.mark.parametrize(
    ("mode", "calls"), [("outline", 1), ("adaptive", 1), ("review", 1), ("teacher", 1), ("off", 0)]
)
async def test_every_way_of_guidance_is_one_trace(mode: str, calls: int) -> None:
    pair = Pair()
    async with pair.client(mode=mode) as client:
        await ask(client)
    spans = [*pair.edge.spans, *pair.cloud.spans]
    request = pair.edge.named("chat gkt")
    assert {context_of(span)[0] for span in spans} == {context_of(request)[0]}
    called = [span for span in pair.edge.spans if span.name.startswith("POST /v1/")]
    assert [parent_of(span) for span in called] == [context_of(request)] * len(called)
    assert len(called) >= calls
    assert bool(called) == bool(calls)
    assert sorted(parent_of(span) for span in pair.cloud.spans) == sorted(context_of(span) for span in called)


async def test_a_call_that_fails_says_why_and_the_answer_does_not() -> None:
    pair = Pair()
    pair.teacher.dies_after = 1
    async with pair.client() as client:
        await ask(client)
    request, call = pair.edge.named("chat gkt"), pair.edge.named("POST /v1/guidance")
    assert (request.attributes or {})["gkt.fallback"] == (call.attributes or {})["error.type"]
    assert (request.status.is_ok, call.status.is_ok) == (True, False)
    guidance = pair.cloud.named("chat scripted-teacher")
    assert (guidance.attributes or {})["error.type"] == (guidance.attributes or {})["gkt.outcome"] == "engine_failed"


async def test_a_client_that_leaves_is_no_error() -> None:
    pair = Pair()
    async with pair.client(max_guidance_tokens=3) as client:
        pair.student.gate.clear()
        async with client.stream("POST", "/v1/chat/completions", json={**QUESTION, "stream": True}) as response:
            await anext(response.aiter_lines())
        pair.student.gate.set()
    request = pair.edge.named("chat gkt")
    assert (request.attributes or {})["gkt.outcome"] == "cancelled"
    assert request.status.is_ok


async def test_a_client_that_is_not_sampled_is_not_recorded() -> None:
    pair = Pair()
    async with pair.client() as client:
        await ask(client, {"traceparent": f"00-{CLIENT_TRACE}-b7ad6b7169203331-00"})
    assert not pair.edge.spans
    assert not pair.cloud.spans


async def test_off_hands_the_clients_trace_on_and_records_nothing() -> None:
    pair = Pair()
    async with pair.client(traced=False) as client:
        await ask(client, CLIENT)
    assert not pair.edge.spans
    assert not pair.cloud.spans
    (hints,) = pair.teacher.hints
    assert hints.trace == CLIENT


@pytest.mark.system
def test_off_imports_nothing_of_opentelemetry() -> None:
    code = (
        "import sys, edge_student.app, cloud_teacher.app, shared.observability.telemetry as t\n"
        "with t.telemetry_from({}, 'x').span('s', 'server', {}) as span: span.child('c').set({'a': 1})\n"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry.exporter")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)


@pytest.mark.usefixtures("without_the_extra")
def test_who_cannot_export_works_without(caplog: pytest.LogCaptureFixture) -> None:
    assert telemetry_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "gkt-edge") is OFF
    assert "gkt[telemetry]" in caplog.text


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, "http://t/x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_the_standard_variables_say_where_traces_go(environ: dict[str, str], endpoint: str | None) -> None:
    assert traces_endpoint(environ) == endpoint


def test_grpc_is_not_spoken_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert telemetry_from(environ, "gkt-edge") is OFF
    assert "grpc" in caplog.text


def test_headers_that_are_no_trace_are_not_handed_on() -> None:
    assert trace_headers(CLIENT) == CLIENT
    assert trace_headers({"tracestate": "a=1"}) == {}
    assert trace_headers({"traceparent": "x" * 100}) == {}
    assert trace_headers({**CLIENT, "tracestate": "x" * 513}) == {"traceparent": CLIENT["traceparent"]}
