"""Server-sent events: encoding of both services' streams, and the reader of the guidance stream.

The data of each event is JSON in ASCII, because FastAPI splits data at every line end that `str.splitlines` recognizes (U+2028
and U+0085 among them). The id of each guidance event is a checksum: a link without TLS can flip bits, and a wrong word would
look like a right one.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import aclosing

import httpx
from fastapi.sse import format_sse_event
from httpx_sse import EventSource, ServerSentEvent, SSEError
from pydantic import BaseModel, ValidationError

from shared.errors import StreamBroken, StreamGarbled
from shared.protocol.guidance import Done, Event, Failure, Guidance, Start, Verdict

_TYPES: dict[str, type[Event]] = {t.event: t for t in (Start, Verdict, Guidance, Done, Failure)}


def encode(event: Event) -> bytes:
    """Encode an event of the guidance stream. Its id is a checksum of its name and data."""
    data = event.model_dump_json(exclude_none=True, ensure_ascii=True)
    return format_sse_event(data_str=data, event=event.event, id=_checksum(event.event, data))


def encode_data(message: BaseModel) -> bytes:
    """Encode an event of an OpenAI stream."""
    return format_sse_event(data_str=message.model_dump_json(ensure_ascii=True))


OPENAI_DONE = format_sse_event(data_str="[DONE]")
"""Last event of an OpenAI stream."""

TimedBytes = tuple[float, bytes]
"""Bytes of a response, behind the time of their arrival."""


class _Parser:
    """Parser of one guidance stream's events."""

    def __init__(self) -> None:
        self._started = False
        self._ended = False

    def event(self, sse: ServerSentEvent) -> Event:
        if self._ended:
            raise StreamGarbled("an event follows the terminal event")
        # The id is optional: other writers of the protocol need no checksums.
        if sse.id and sse.id != _checksum(sse.event, sse.data):
            raise StreamGarbled(f"event {sse.event[:40]!r} does not match its checksum")
        event = _parse(sse.event, sse.data)
        if isinstance(event, Start) == self._started and not isinstance(event, Failure):
            raise StreamGarbled("a stream has exactly one start event, at its start")
        self._started = True
        self._ended = isinstance(event, Done | Failure)
        return event

    def close(self) -> None:
        if not self._ended:
            raise StreamBroken("the stream ended without its terminal event")


async def decode(response: httpx.Response) -> AsyncGenerator[Event, None]:
    """Read a guidance stream to the end of the response, so that the connection can be used again.

    Raises StreamGarbled for anything outside the protocol and StreamBroken for a stream that ends early. Transport errors are
    httpx's own.
    """
    parser = _Parser()
    try:
        async for sse in EventSource(response).aiter_sse():
            yield parser.event(sse)
    except SSEError as error:
        raise StreamGarbled(f"not a stream of server-sent events: {error}") from error
    parser.close()


def decode_recorded(reads: Iterable[TimedBytes]) -> Generator[tuple[float, Event]]:
    """Parse a recorded guidance stream. Each event comes with the arrival time of its last byte. Raises as `decode`."""
    parser = _Parser()
    for at_s, sse in timed_events(reads):
        yield at_s, parser.event(sse)
    parser.close()


def timed_events(reads: Iterable[TimedBytes]) -> Generator[tuple[float, ServerSentEvent]]:
    """Split recorded bytes into events, each with the arrival time of its last byte. An unfinished event is left out."""
    arrived_s = 0.0

    def body() -> Generator[bytes]:
        nonlocal arrived_s
        for arrived_s, data in reads:  # noqa: B007 - the loop below reads it
            yield data

    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body())
    for event in EventSource(response).iter_sse():
        if event.data:  # a comment may look like an event without data
            yield arrived_s, event


def _checksum(name: str, data: str) -> str:
    return f"{zlib.crc32(f'{name} {data}'.encode()):08x}"


def _parse(name: str, data: str) -> Event:
    try:
        return _TYPES[name].model_validate_json(data)
    except KeyError:
        raise StreamGarbled(f"unknown event {name[:40]!r}") from None
    except ValidationError as error:
        raise StreamGarbled(f"event {name!r} has {error.error_count()} invalid fields") from None


async def with_first(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Put the first item back in front of a stream.

    A service takes it out so that a failure before it still becomes an HTTP status. Closing the result closes the rest at once.
    """
    async with aclosing(rest):
        yield first
        async for item in rest:
            yield item
