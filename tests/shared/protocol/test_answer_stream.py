from __future__ import annotations

import httpx
import pytest

from shared.errors import StreamBroken, StreamGarbled
from shared.protocol.answer_stream import AnswerFailed, aiter_answer_chunks, answer_chunks, recorded_answer_chunks
from shared.protocol.gkt import ChunkSource, Source
from shared.protocol.guidance import ErrorBody, ErrorDetail
from shared.protocol.openai_responses import ChatCompletionChunk, ChunkChoice, Delta
from shared.protocol.sse import OPENAI_DONE, encode_data

CHUNKS = [
    ChatCompletionChunk(
        id="c",
        created=1,
        model="gkt",
        choices=[ChunkChoice(index=0, delta=Delta(content=text))],
        gkt=ChunkSource(source=source),
    )
    for text, source in [("Zwölf", Source.TEACHER), (" eggs\u2028", Source.STUDENT)]
]
STREAM = b"".join(map(encode_data, CHUNKS))
FAILURE = encode_data(ErrorBody(error=ErrorDetail(message="out of room", type="server_error", code="overloaded")))


def response(data: bytes, kind: str = "text/event-stream") -> httpx.Response:
    return httpx.Response(200, headers={"content-type": kind}, content=data)


async def test_every_reader_returns_the_chunks() -> None:
    stream = STREAM + OPENAI_DONE
    assert list(answer_chunks(response(stream))) == CHUNKS
    assert [chunk async for chunk in aiter_answer_chunks(response(stream))] == CHUNKS
    assert [chunk for _, chunk in recorded_answer_chunks([(0.0, stream[:40]), (1.0, stream[40:])])] == CHUNKS


@pytest.mark.parametrize(
    ("stream", "error", "message"),
    [
        (b"", StreamBroken, "ended before"),
        (STREAM, StreamBroken, "ended before"),
        (STREAM + OPENAI_DONE[:-1], StreamBroken, "ended before"),
        (STREAM + FAILURE, AnswerFailed, "^out of room$"),
        (b"data: {}\n\n" + OPENAI_DONE, StreamGarbled, "not a chunk.*id: Field required"),
        (STREAM + b"data: not JSON\n\n" + OPENAI_DONE, StreamGarbled, "not a chunk"),
        (STREAM + OPENAI_DONE + STREAM, StreamGarbled, "follows"),
    ],
)
async def test_anything_but_a_whole_answer_is_an_error(stream: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(answer_chunks(response(stream)))
    with pytest.raises(error, match=message):
        [chunk async for chunk in aiter_answer_chunks(response(stream))]
    with pytest.raises(error, match=message):
        list(recorded_answer_chunks([(0.0, stream)]))


async def test_a_response_of_another_type_is_garbled() -> None:
    with pytest.raises(StreamGarbled, match="text/html"):
        list(answer_chunks(response(STREAM, "text/html")))
    with pytest.raises(StreamGarbled, match="text/html"):
        [chunk async for chunk in aiter_answer_chunks(response(STREAM, "text/html"))]


def test_the_error_of_the_edge_is_kept() -> None:
    with pytest.raises(AnswerFailed) as failed:
        list(answer_chunks(response(FAILURE)))
    assert (failed.value.detail.code, failed.value.message) == ("overloaded", "out of room")
