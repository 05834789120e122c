"""Many concurrent streams, against a scripted server on a real uvicorn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Server, StreamRequest
from evaluation.loadgen.generator import STRAGGLER_AFTER_READS, run_streams
from tests.running import serving

FOREVER = 10_000


class Continuing:
    """A server that writes as many words as requested, 5 ms apart, and lists its requests."""

    def __init__(self, *, status: int = 200, breaks_with: str | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.app = FastAPI()
        self._status = status
        self._breaks_with = breaks_with
        self.app.post("/v1/completions")(self._complete)

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self._status != 200:
            return JSONResponse({"error": {"message": "full"}}, self._status)
        return StreamingResponse(self._words(body["max_tokens"]), media_type="text/event-stream")

    async def _words(self, count: int) -> AsyncGenerator[str]:
        for at in range(count):
            await asyncio.sleep(0.005)
            if at == 2 and self._breaks_with:
                yield f"data: {self._breaks_with}\n\n"
                return
            yield _data({"choices": [{"index": 0, "text": " word"}], "object": "text_completion"})
        yield _data({"choices": [{"text": "", "finish_reason": "length"}]})
        yield _data(
            {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}}
        )
        yield "data: [DONE]\n\n"


def _data(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


async def test_streams_run_side_by_side_and_each_token_has_its_time() -> None:
    asks = [StreamRequest("one", 30), StreamRequest("two", 20)]
    continuing = Continuing()

    async with serving(continuing.app, ready=False) as url:
        written = await asyncio.to_thread(run_streams, Server("fake", url, {"repeat_penalty": 1.0}), asks)

    assert [len(stream.times) for stream in written] == [30, 20]
    assert all(stream.is_complete(ask) for stream, ask in zip(written, asks, strict=True))
    assert [stream.prompt_tokens for stream in written] == [7, 7]
    for stream in written:
        assert stream.sent_s < stream.first_s <= stream.times[-1] <= stream.end_s
        assert list(stream.times) == sorted(stream.times)
    assert written[1].first_s < written[0].times[-1]
    assert {body["prompt"] for body in continuing.asked} == {"one", "two"}
    assert all(body["repeat_penalty"] == 1 and body["temperature"] == 0 for body in continuing.asked)


async def test_the_next_stream_is_sent_as_one_ends() -> None:
    continuing = Continuing()
    asks = [StreamRequest(f"{number}", 4 + number) for number in range(5)]

    async with serving(continuing.app, ready=False) as url:
        written = await asyncio.to_thread(run_streams, Server("fake", url), asks, concurrency=2)

    assert all(stream.is_complete(ask) for stream, ask in zip(written, asks, strict=True))
    for number, stream in enumerate(written):
        under_way = [one for one in written[:number] if one.end_s > stream.sent_s]
        assert len(under_way) < 2
        assert number < 2 or under_way, "a place that is free is taken"


async def test_a_late_request_comes_while_the_others_write_and_ends_it_all() -> None:
    continuing = Continuing()

    async with serving(continuing.app, ready=False) as url:
        asks = [StreamRequest("long", FOREVER), StreamRequest("long", FOREVER)]
        *others, late = await asyncio.to_thread(
            run_streams, Server("fake", url), asks, straggler=StreamRequest("late", 5)
        )

    assert [body["prompt"] for body in continuing.asked] == ["long", "long", "late"]
    assert late.finish == "length"
    for stream in others:
        assert stream.finish is None
        assert sum(at < late.sent_s for at in stream.times) >= STRAGGLER_AFTER_READS - 1
        assert stream.times[-1] > late.first_s


async def test_a_late_request_without_company_is_not_measured() -> None:
    async with serving(Continuing().app, ready=False) as url:
        with pytest.raises(NotMeasured, match="before the straggler"):
            await asyncio.to_thread(
                run_streams, Server("fake", url), [StreamRequest("short", 1)], straggler=StreamRequest("late", 5)
            )


async def test_a_refusal_is_not_measured() -> None:
    async with serving(Continuing(status=503).app, ready=False) as url:
        with pytest.raises(NotMeasured, match=r"the fake answered 503: .*full"):
            await asyncio.to_thread(run_streams, Server("fake", url), [StreamRequest("a", 5)])


@pytest.mark.parametrize("sent", ['{"error": {"message": "out of room"}}', "nonsense"])
async def test_a_stream_that_breaks_off_is_not_measured(sent: str) -> None:
    async with serving(Continuing(breaks_with=sent).app, ready=False) as url:
        with pytest.raises(NotMeasured):
            await asyncio.to_thread(run_streams, Server("fake", url), [StreamRequest("a", 5)])


def test_a_server_that_is_not_there_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="ConnectionRefused"):
        run_streams(Server("fake", "http://127.0.0.1:9"), [StreamRequest("a", 5)])
