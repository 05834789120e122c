"""If a link changes the cloud's bytes, the edge gets the guidance that was sent, or one kind of failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import httpx
import pytest

from edge_student.cloud.circuit_breaker import CircuitBreaker
from edge_student.cloud.client import CloudFailed, HttpCloudClient, Traffic
from edge_student.settings import EdgeSettings
from shared.protocol.gkt import FallbackReason
from shared.protocol.guidance import Done, Event, FinishReason, Guidance, GuidanceRequest, Message, Start, Timing, Usage
from shared.protocol.sse import encode

ASKED = GuidanceRequest(messages=[Message(role="user", content="Why?")], max_guidance_tokens=3)
EVENTS: list[Event] = [
    Start(request_id="r", model="t", template="answer@1#0", tokenizer="f"),
    Guidance(text="Zwölf", token_ids=[1]),
    Done(
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=3, completion_tokens=1),
        timing=Timing(total_ms=1),
    ),
]
HEAD = (
    b"HTTP/1.1 200 OK\r\ndate: Tue, 24 Nov 2026 18:00:00 GMT\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\nx-request-id: r\r\ntransfer-encoding: chunked\r\n\r\n"
)
REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\ncontent-length: 41\r\n\r\n"
    b'{"error":{"message":"full","type":"server"}}'
)


def _chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


ANSWER = HEAD + b"".join(_chunked(encode(event)) for event in EVENTS) + b"0\r\n\r\n"


async def test_flipped_bits_end_in_guidance_as_it_was_or_in_one_kind_of_failure() -> None:
    draw = random.Random(4)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sent = bytearray(draw.choice([ANSWER, ANSWER, REFUSAL]))
        for _ in range(draw.randint(1, 3)):
            sent[draw.randrange(len(sent))] ^= 1 << draw.randrange(8)
        writer.write(bytes(sent))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    settings = EdgeSettings(first_token_deadline_s=5, next_token_deadline_s=5, breaker_failures=10**6)
    cloud = HttpCloudClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", settings)
    whole = failed = 0
    async with server:
        for _ in range(600):
            cloud.breaker = CircuitBreaker(failures=10**6, open_s=1)  # one that holds to no Retry-After
            try:
                events = [event async for event in cloud.guide(ASKED, {}, Traffic())]
            except CloudFailed:
                failed += 1
            else:
                assert events == EVENTS
                whole += 1
        await cloud.close()
    assert whole > 20
    assert failed > 100


class OddStream(httpx.AsyncByteStream):
    """A body whose reading and closing raise what no transport should raise."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield encode(EVENTS[0])
        raise LookupError("unknown encoding")

    async def aclose(self) -> None:
        raise RuntimeError("closed already")


class OddTransport(httpx.AsyncBaseTransport):
    def __init__(self, *, answers: bool) -> None:
        self._answers = answers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._answers:
            raise ValueError("what is this?")
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=OddStream())


@pytest.mark.parametrize("answers", [True, False])
async def test_errors_that_nobody_expects_are_failures_of_the_cloud_too(answers: bool) -> None:
    cloud = HttpCloudClient("http://cloud", EdgeSettings(), transport=OddTransport(answers=answers))

    with pytest.raises(CloudFailed) as caught:
        _ = [event async for event in cloud.guide(ASKED, {}, Traffic())]

    assert caught.value.reason is FallbackReason.BROKEN
    await cloud.close()
