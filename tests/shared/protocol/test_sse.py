"""Guidance events arrive as they were sent, or not at all."""

from __future__ import annotations

import random

import httpx
import pytest

from shared.errors import BodyDamaged, StreamBroken, StreamGarbled
from shared.protocol.content_digest import check_digest, content_digest
from shared.protocol.guidance import Done, Event, FinishReason, Guidance, Start, Timing, Usage
from shared.protocol.sse import decode, decode_recorded, encode, timed_events

USAGE = Usage(prompt_tokens=3, completion_tokens=2)
EVENTS: list[Event] = [
    Start(request_id="r", model="t", template="answer@1#0", tokenizer="f"),
    Guidance(text="Zwölf", token_ids=[1]),
    Guidance(text=" eggs\u2028", token_ids=[2]),
    Done(finish_reason=FinishReason.STOP, usage=USAGE, timing=Timing(total_ms=1)),
]
STREAM = b"".join(map(encode, EVENTS))


async def read(data: bytes) -> list[Event]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=data)
    return [event async for event in decode(response)]


async def test_a_stream_is_read_as_it_was_written() -> None:
    assert await read(STREAM) == EVENTS


async def test_a_writer_without_checksums_is_believed() -> None:
    lines = [line for line in STREAM.split(b"\n") if not line.startswith(b"id:")]

    assert await read(b"\n".join(lines)) == EVENTS


async def test_no_flipped_bit_changes_what_is_read() -> None:
    draw = random.Random(1)
    for at in range(len(STREAM)):
        flipped = bytearray(STREAM)
        flipped[at] ^= 1 << draw.randrange(8)
        try:
            events = await read(bytes(flipped))
        except (StreamGarbled, StreamBroken):
            continue
        assert events == EVENTS, f"byte {at}"


async def test_a_changed_word_is_garbled() -> None:
    with pytest.raises(StreamGarbled, match="checksum"):
        await read(STREAM.replace(b"eggs", b"legs"))


def test_a_body_is_the_one_that_its_digest_is_of() -> None:
    check_digest(content_digest(b"body"), b"body")
    check_digest(None, b"body")
    with pytest.raises(BodyDamaged):
        check_digest(content_digest(b"body"), b"bodx")


def test_a_recorded_event_is_timed_by_its_last_byte() -> None:
    reads = [
        (1.0, b"event: start\nda"),
        (2.0, b'ta: {"a": "b: c"}\n'),
        (3.0, b"\n: ping\n\nid: 1\ndata: x\n\n: ping\n\ndata: y\n\ndata: z"),
    ]

    found = [(at_s, event.event, event.data) for at_s, event in timed_events(reads)]

    assert found == [(3.0, "start", '{"a": "b: c"}'), (3.0, "message", "x"), (3.0, "message", "y")]


def test_a_recorded_stream_is_read_with_its_times() -> None:
    reads = [(float(at), encode(event)) for at, event in enumerate(EVENTS)]

    assert list(decode_recorded(reads)) == list(enumerate(EVENTS))
    with pytest.raises(StreamBroken):
        list(decode_recorded(reads[:-1]))
