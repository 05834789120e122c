"""Faults of the link and refusals of the cloud: both services with scripted models, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from cloud_teacher.app import create_app as create_cloud
from cloud_teacher.config.settings import CloudSettings
from edge_student.app import create_app as create_edge
from edge_student.settings import EdgeSettings
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.edge_student.fakes import ScriptedStudent
from tests.running import serving
from wan import Fault, FaultKind, Wan

KEY = "a-key-for-tests"
BUDGET = 24
TAUGHT = [f" taught-{number}" for number in range(BUDGET)]
OWN = [f" own-{number}" for number in range(BUDGET)]
BODY = {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 2 * BUDGET}


@asynccontextmanager
async def cloud() -> AsyncGenerator[str]:
    teacher = ScriptedTeacher(*TAUGHT, max_model_len=4000)
    settings = CloudSettings(keys=(KEY,), max_model_len=4000, max_prompt_tokens=2000)
    async with serving(create_cloud(settings, teacher=teacher)) as url:
        yield url


@asynccontextmanager
async def edge(cloud_url: str | None, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    options = {"cloud_url": cloud_url, "cloud_key": KEY, "max_guidance_tokens": BUDGET, "breaker_failures": 100}
    app = create_edge(EdgeSettings(**{**options, **settings}), student=ScriptedStudent(*OWN))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=60) as client:
        yield client


async def chat(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/v1/chat/completions", json={**BODY, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


FAULTS: dict[str, tuple[Fault, str | None, bool]] = {
    "reset": (Fault(kind=FaultKind.RESET, direction="down", after_bytes=900), "broken", True),
    "closed": (Fault(kind=FaultKind.CUT, direction="down", after_bytes=900), "broken", True),
    "stalled": (Fault(kind=FaultKind.STALL, direction="down", after_bytes=900), "stalled", True),
    "garbage": (Fault(kind=FaultKind.CORRUPT, rate=0.5, direction="down", after_bytes=900), None, True),
    "closed at once": (Fault(kind=FaultKind.CUT, direction="down", after_bytes=1), "broken", False),
    "silent": (Fault(kind=FaultKind.STALL, direction="down", after_bytes=1), "first_token_deadline", False),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_whatever_the_link_does_the_answer_is_complete(name: str) -> None:
    fault, reason, some_guidance = FAULTS[name]
    waits = {"stalled": "next_token_deadline_s", "silent": "first_token_deadline_s"}
    deadlines: dict[str, Any] = {waits[name]: 2.0} if name in waits else {}
    async with cloud() as there, Wan({"edge": "127.0.0.1:0"}, to=urlsplit(there).netloc) as wan:
        link = wan.link("edge")
        async with edge(link.url, **deadlines) as client:
            clean = await chat(client)
            link.strike(fault)
            answer = await chat(client)
            metrics = (await client.get("/metrics")).text
    assert link.opened == 1, "the second question goes over the same connection"
    text = answer["choices"][0]["message"]["content"]
    gkt = answer["gkt"]
    assert gkt["fallback"] == reason if reason else gkt["fallback"] in {"garbled", "broken"}
    assert f'gkt_edge_fallbacks_total{{reason="{gkt["fallback"]}"}} 1.0' in metrics
    assert answer["choices"][0]["finish_reason"] in {"stop", "length"}
    segments = {s["source"]: s for s in gkt["segments"][0]}
    assert ("teacher" in segments) == some_guidance
    arrived = segments.get("teacher", {"chars": 0})["chars"]
    assert clean["choices"][0]["message"]["content"].startswith(text[:arrived]), "guidance is its exact prefix"
    assert arrived < len("".join(TAUGHT))
    assert text[arrived:] == "".join(OWN)
    assert segments["student"]["tokens"] > 0


async def test_a_cloud_that_cannot_be_reached_or_will_not() -> None:
    async with edge("http://127.0.0.1:9", breaker_failures=1) as client:
        assert (await chat(client))["gkt"]["fallback"] == "unreachable"
        assert (await chat(client))["gkt"]["fallback"] == "breaker_open"
    async with cloud() as there:
        async with edge(there, cloud_key="wrong") as client:
            assert (await chat(client))["gkt"]["fallback"] == "unauthorized"
            unknown = await chat(client, gkt={"template": "nowhere"})
            assert unknown["gkt"]["fallback"] == "unauthorized"
        async with edge(there) as client:
            assert (await chat(client, gkt={"template": "nowhere"}))["gkt"]["fallback"] == "rejected"
            assert (await chat(client))["gkt"]["fallback"] is None
    async with edge(None) as client:
        assert (await chat(client))["gkt"]["fallback"] == "not_configured"


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "unauthorized"), (429, "rate_limited"), (503, "unavailable"), (500, "failed")]
)
async def test_refusals_of_any_server(status: int, reason: str) -> None:
    """Run a server that answers as gateways do, without our error body."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} no\r\ncontent-length: 2\r\nretry-after: 60\r\n\r\nno".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with edge(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        assert (await chat(client))["gkt"]["fallback"] == reason
        assert (await chat(client))["gkt"]["fallback"] == "breaker_open", "it asked to be left alone for a minute"
    server.close()
    await server.wait_closed()


async def test_a_stream_that_ends_cleanly_but_too_early() -> None:
    app = FastAPI()

    async with cloud() as there:

        @app.post("/v1/guidance")
        async def guidance(request: Request) -> Response:
            headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
            async with httpx.AsyncClient(base_url=there) as http:
                stream = (await http.post("/v1/guidance", content=await request.body(), headers=headers)).text
            return Response(stream[: stream.index("event: done")], media_type="text/event-stream")

        async with serving(app, ready=False) as url, edge(url) as client:
            answer = await chat(client)
    assert answer["gkt"]["fallback"] in {"broken", "garbled"}
    assert answer["gkt"]["segments"][0][0]["tokens"] > 0
