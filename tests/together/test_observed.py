"""Observability: a process that exports traces, logs as JSON, and metrics that do not grow with the callers."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from shared.observability.logs import JsonFormatter, TextFormatter
from shared.protocol.guidance import FinishReason
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.collector import collecting
from tests.processes import Process
from tests.running import serving
from tests.together.test_telemetry import CLIENT, CLIENT_TRACE, SECRET, Pair, ask

GUIDANCE = {"messages": [{"role": "user", "content": SECRET}], "max_guidance_tokens": 3}


@pytest.mark.parametrize("named", [None, "my-cloud"])
@pytest.mark.system
def test_a_process_exports_by_the_standard_variables_and_loses_nothing_at_its_end(
    tmp_path: Path, named: str | None
) -> None:
    with collecting() as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "GKT_CLOUD_LOG_FORMAT": "json",
            "GKT_CLOUD_LOG_LEVEL": "info",
        }
        process = Process(
            "tests.cloud_teacher.scripted_cloud",
            environment | ({"OTEL_SERVICE_NAME": named} if named else {}),
            tmp_path,
        )
        try:
            process.wait_until_ready()
            httpx.post(f"{process.url()}/v1/guidance", json=GUIDANCE, headers={**CLIENT, "x-request-id": "r-7"})
            process.end()
        finally:
            process.kill()
    (span,) = collector.spans
    assert collector.paths == {"/v1/traces"}
    assert (span.service, span.name) == (named or "gkt-cloud", "chat scripted-teacher")
    assert (span.trace_id, span.parent_id) == (CLIENT_TRACE, "b7ad6b7169203331")
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    (ours,) = [line for line in lines if "r-7" in line["message"]]
    assert (ours["request_id"], ours["trace_id"]) == ("r-7", CLIENT_TRACE)
    assert SECRET not in process.log.read_text()


@contextmanager
def logged(formatter: logging.Formatter) -> Iterator[io.StringIO]:
    """Collect everything that is logged, at every level."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield written
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


async def test_json_logs_have_the_ids_of_request_and_trace_and_no_text() -> None:
    pair = Pair()
    pair.teacher.dies_after, pair.teacher.error = 1, ValueError(f"cannot do {SECRET}")
    with logged(JsonFormatter()) as written:
        async with pair.client() as client:
            answer = await ask(client, CLIENT)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    ours = [line for line in lines if line.get("request_id") == answer["gkt"]["request_id"]]
    assert {line["logger"] for line in ours} >= {"gkt.answering", "gkt.cloud"}  # both sides
    assert {line["trace_id"] for line in ours if line["logger"].startswith("gkt.")} == {CLIENT_TRACE}
    (crash,) = [line for line in ours if "exception" in line]
    assert crash["exception"] == "ValueError"
    assert crash["stack"][-1].endswith("stream")
    assert SECRET not in written.getvalue()


@pytest.mark.parametrize("traced", [True, False])
async def test_a_line_of_text_ends_with_the_trace_where_there_is_one(traced: bool) -> None:
    pair = Pair()
    with logged(TextFormatter()) as written:
        async with pair.client(traced=traced) as client:
            answer = await ask(client, CLIENT)
    line = next(line for line in written.getvalue().splitlines() if f"{answer['gkt']['request_id']} ok" in line)
    assert line.endswith(f" trace_id={CLIENT_TRACE}") is traced


async def test_no_label_of_the_metrics_grows_with_the_callers() -> None:
    keys = [f"key-number-{number}" for number in range(20)]
    settings = CloudSettings(keys=tuple(map(SecretStr, keys)), coalesce="cache")
    app = create_app(settings, teacher=ScriptedTeacher(" a", " b", " c"))
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:

        async def call(number: int, **more: Any) -> None:
            headers = {"authorization": f"Bearer {keys[number]}", "x-request-id": f"request-number-{number}"}
            template = {"template": f"unknown-{number}"} if number % 5 == 0 else {}
            for _ in range(2):  # the second response comes from the cache
                await client.post("/v1/guidance", json={**GUIDANCE, **template, **more}, headers=headers)

        await asyncio.gather(*[call(number) for number in range(10)])
        few = labels((await client.get("/metrics")).text)
        await asyncio.gather(*[call(number, seed=number) for number in range(20)])
        many = labels((await client.get("/metrics")).text)
    assert few == many
    assert {name for name, _ in many} == {"outcome", "teacher", "kind", "le"}
    known = {
        *FinishReason,
        "client_disconnected",
        "template_not_found",
        "coalesced",
        "cached",
        "scripted-teacher",
        "prompt",
        "completion",
    }
    assert {value for name, value in many if name != "le"} <= known


def labels(page: str) -> set[tuple[str, str]]:
    """Return every label of our metrics with its values."""
    ours = "\n".join(line for line in page.splitlines() if line.startswith("gkt_"))
    return set(re.findall(r'(\w+)="([^"]*)"', ours))
