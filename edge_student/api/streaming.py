"""Streams the chunks of an answer as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Request
from fastapi.sse import EventSourceResponse

from shared.errors import GktError, InternalError
from shared.protocol.sse import OPENAI_DONE, encode_data, with_first
from shared.server.app import cancel_on_disconnect, error_body


async def stream(chunks: AsyncGenerator[bytes, None], request: Request) -> EventSourceResponse:
    """Return the response. Errors before the first chunk are raised, so that they get a status of their own."""
    try:
        first = await cancel_on_disconnect(anext(chunks), request)
    except BaseException:
        await chunks.aclose()
        raise
    events = with_first(first, _until_error(chunks))
    return EventSourceResponse(events, headers={"cache-control": "no-cache"})


async def _until_error(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Yield the rest of a stream and its end mark, or an error in OpenAI's shape and no end mark."""
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk
        yield OPENAI_DONE
    except GktError as error:
        yield encode_data(error_body(error))
    except Exception:
        message = "internal server error; the answer is incomplete; see the server log for this request id"
        yield encode_data(error_body(InternalError(message)))
        raise
