"""The edge's client of the cloud over real HTTP: a stream that is left early does not cost the next one its connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse

from edge_student.cloud.circuit_breaker import BreakerState
from edge_student.cloud.client import CloudFailed, HttpCloudClient, Traffic
from edge_student.settings import EdgeSettings
from shared.protocol.gkt import FallbackReason
from shared.protocol.guidance import Guidance, GuidanceRequest, Message, Start
from shared.protocol.sse import encode
from tests.running import serving

REQUEST = GuidanceRequest(messages=[Message(role="user", content="?")], max_guidance_tokens=10)


async def test_whoever_leaves_a_stream_finds_a_connection_open_for_the_next() -> None:
    app = FastAPI()
    ports: list[tuple[str, int]] = []

    def note(request: Request) -> None:
        assert request.client is not None
        ports.append((request.url.path, request.client.port))

    @app.get("/health")
    async def health(request: Request) -> dict[str, str]:
        note(request)
        return {"status": "ok"}

    @app.post("/v1/guidance")
    async def guidance(request: Request) -> EventSourceResponse:
        note(request)

        async def events() -> AsyncGenerator[bytes]:
            yield encode(Start(request_id="r", model="m", template="t", tokenizer="t"))
            yield encode(Guidance(text="a", token_ids=[1]))
            await asyncio.Event().wait()

        return EventSourceResponse(events())

    async with serving(app, ready=False) as url:
        cloud = HttpCloudClient(url, EdgeSettings())
        for _ in range(2):
            async with aclosing(cloud.guide(REQUEST, {}, Traffic())) as events:
                async for event in events:
                    if isinstance(event, Guidance):
                        break
            assert cloud._connecting is not None
            await cloud._connecting
        await cloud.close()
    (first, a), (health_path, b), (second, c), *_ = ports
    assert (first, health_path, second) == ("/v1/guidance", "/health", "/v1/guidance")
    assert a != b
    assert c == b, "the connection that was opened meanwhile"


@pytest.mark.parametrize("begins", [False, True])
async def test_a_deadline_in_which_nobody_heard_a_byte_opens_the_breaker_at_once(begins: bool) -> None:
    app = FastAPI()
    over = asyncio.Event()

    @app.post("/v1/guidance")
    async def guidance() -> EventSourceResponse:
        async def events() -> AsyncGenerator[bytes]:
            yield encode(Start(request_id="r", model="m", template="t", tokenizer="t"))
            await over.wait()

        if not begins:
            await over.wait()
        return EventSourceResponse(events())

    async with serving(app, ready=False) as url:
        cloud = HttpCloudClient(url, EdgeSettings(first_token_deadline_s=0.3, breaker_failures=3))
        with pytest.raises(CloudFailed) as failed:
            async for _ in cloud.guide(REQUEST, {}, Traffic()):
                pass
        over.set()
        await cloud.close()
    assert failed.value.reason is FallbackReason.FIRST_TOKEN_DEADLINE
    assert cloud.breaker.state is (BreakerState.CLOSED if begins else BreakerState.OPEN), (
        "a slow teacher is not a dead link"
    )
