"""Typed server-sent events, written and read. A stream without its terminal event is an error.

The data of each event is JSON in ASCII. FastAPI and httpx both split lines at every character that `str.splitlines` takes
for a line's end (U+2028 and U+0085 among them), which raw Unicode in JSON may hold. Each event of guidance has a checksum as its
id: a link without TLS may flip bits, and a wrong word would be as good as a right one.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx
from fastapi.sse import format_sse_event
from httpx_sse import EventSource, SSEError
from pydantic import BaseModel, ValidationError

from shared.errors import StreamBroken, StreamGarbled
from shared.protocol.guidance import Done, Event, Failure, Guidance, Start, Verdict

_TYPES: dict[str, type[Event]] = {t.event: t for t in (Start, Verdict, Guidance, Done, Failure)}


def encode(event: Event) -> bytes:
    """One event of the guidance stream as it goes over the wire. Its id is a checksum of the rest."""
    data = event.model_dump_json(exclude_none=True, ensure_ascii=True)
    return format_sse_event(data_str=data, event=event.event, id=_checksum(event.event, data))


def encode_data(message: BaseModel) -> bytes:
    """One unnamed event, as OpenAI streams them."""
    return format_sse_event(data_str=message.model_dump_json(ensure_ascii=True))


OPENAI_DONE = format_sse_event(data_str="[DONE]")
"""What ends a stream of OpenAI's."""


async def decode(response: httpx.Response) -> AsyncGenerator[Event, None]:
    """Read a guidance stream, up to and including its terminal event, then to its end, so that the connection can serve again.

    Raises StreamGarbled for what is not of the protocol, StreamBroken where the stream ends early; errors of the transport
    are httpx's own.
    """
    started = ended = False
    try:
        async for sse in EventSource(response).aiter_sse():
            if ended:
                raise StreamGarbled("there are events behind the terminal one")
            # A writer without ids is believed.
            if sse.id and sse.id != _checksum(sse.event, sse.data):
                raise StreamGarbled(f"event {sse.event[:40]!r} is not as it was sent")
            event = _parse(sse.event, sse.data)
            if isinstance(event, Start) == started and not isinstance(event, Failure):
                raise StreamGarbled("a stream has exactly one start event, at its start")
            started = True
            yield event
            if isinstance(event, Done | Failure):
                ended = True
    except (SSEError, UnicodeDecodeError) as error:
        raise StreamGarbled(f"not a stream of server-sent events: {error}") from error
    if not ended:
        raise StreamBroken("the stream ended without its terminal event")


def _checksum(name: str, data: str) -> str:
    return f"{zlib.crc32(f'{name} {data}'.encode()):08x}"


def _parse(name: str, data: str) -> Event:
    try:
        return _TYPES[name].model_validate_json(data)
    except KeyError:
        raise StreamGarbled(f"unknown event {name[:40]!r}") from None
    except ValidationError as error:
        raise StreamGarbled(f"event {name!r} does not hold what it should: {error.error_count()} errors") from None


async def with_first(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Put back the first item of a stream, taken out so that what failed before it could still become a proper status.

    Closing it closes the rest at once, and does not leave that to the garbage collector.
    """
    async with aclosing(rest):
        yield first
        async for item in rest:
            yield item
