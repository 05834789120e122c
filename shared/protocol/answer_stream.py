"""Reader of the edge's streamed chat completion: chunks, then `[DONE]`, or an error in place of both."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError
from pydantic import ValidationError

from shared.errors import StreamBroken, StreamError, StreamGarbled
from shared.protocol.guidance import ErrorBody, ErrorDetail
from shared.protocol.openai_responses import ChatCompletionChunk
from shared.protocol.sse import TimedBytes, timed_events
from shared.validation import describe

DONE = "[DONE]"


class AnswerFailed(StreamError):
    """The edge ended the stream with an error."""

    code = "answer_failed"

    def __init__(self, detail: ErrorDetail) -> None:
        super().__init__(detail.message)
        self.detail = detail


class _Parser:
    """Parser of one stream's events."""

    def __init__(self) -> None:
        self._done = False

    def chunk(self, event: ServerSentEvent) -> ChatCompletionChunk | None:
        """Return the chunk in an event; None for `[DONE]`. Raises AnswerFailed and StreamGarbled."""
        if self._done:
            raise StreamGarbled(f"an event follows {DONE}")
        if event.data == DONE:
            self._done = True
            return None
        try:
            return ChatCompletionChunk.model_validate_json(event.data)
        except ValidationError as error:
            problems = describe(error)
        try:
            failure = ErrorBody.model_validate_json(event.data)
        except ValidationError:
            raise StreamGarbled(f"an event is not a chunk of a chat completion: {problems}") from None
        raise AnswerFailed(failure.error)

    def close(self) -> None:
        if not self._done:
            raise StreamBroken(f"the stream ended before {DONE}")


def answer_chunks(response: httpx.Response) -> Generator[ChatCompletionChunk]:
    """Read an answer to its end.

    Raises AnswerFailed for an error of the edge, StreamGarbled for anything but an answer and StreamBroken for a stream that
    ends early. Transport errors are httpx's own.
    """
    parser = _Parser()
    try:
        for event in EventSource(response).iter_sse():
            if chunk := parser.chunk(event):
                yield chunk
    except SSEError as error:
        raise StreamGarbled(f"not an answer of an edge: {error}") from error
    parser.close()


async def aiter_answer_chunks(response: httpx.Response) -> AsyncGenerator[ChatCompletionChunk]:
    """Read an answer to its end, as `answer_chunks` does."""
    parser = _Parser()
    try:
        async for event in EventSource(response).aiter_sse():
            if chunk := parser.chunk(event):
                yield chunk
    except SSEError as error:
        raise StreamGarbled(f"not an answer of an edge: {error}") from error
    parser.close()


def recorded_answer_chunks(reads: Iterable[TimedBytes]) -> Generator[tuple[float, ChatCompletionChunk]]:
    """Parse a recorded answer. Each chunk comes with the time at which its last byte arrived. Raises as `answer_chunks`."""
    parser = _Parser()
    for at_s, event in timed_events(reads):
        if chunk := parser.chunk(event):
            yield at_s, chunk
    parser.close()
