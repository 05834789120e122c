"""The bench of the cloud against vLLM's own server, with scripted servers, and the load generator's parser of guidance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse

from evaluation.bench import ab_rounds
from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.cloud_overhead import measure_first_token, measure_overhead
from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import GUIDANCE, Server, StreamRequest, StreamResult
from evaluation.loadgen.generator import run_streams
from shared.protocol.guidance import Done, Failure, FinishReason, Guidance, Start, Timing, Usage
from shared.protocol.sse import encode
from tests.running import serving


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ab_rounds, "REST_S", 0)


OURS, THEIRS = Server("cloud", "http://cloud"), Server("vllm serve", "http://vllm")


class ScriptedServers:
    """Servers that take a known time for the first token and each further one. Requests of `cut_short` end early."""

    def __init__(
        self, first_s: Mapping[str, float], token_s: Mapping[str, float], cut_short: Sequence[int] = ()
    ) -> None:
        self.asked: list[str] = []
        self._first_s, self._token_s, self._cut_short = first_s, token_s, cut_short

    def __call__(self, server: Server, requests: Sequence[StreamRequest]) -> list[StreamResult]:
        short = len(self.asked) in self._cut_short
        self.asked.append(server.name)
        return [self._result(server, request, short=short) for request in requests]

    def _result(self, server: Server, request: StreamRequest, *, short: bool) -> StreamResult:
        count = request.max_tokens // 2 if short else request.max_tokens
        times = [self._first_s[server.name] + at * self._token_s[server.name] for at in range(count)]
        return StreamResult(0.0, times, times[-1], "stop" if short else "length", 5, count)


def test_both_take_turns_and_ratios_are_those_of_a_round() -> None:
    servers = ScriptedServers({"cloud": 0.104, "vllm serve": 0.1}, {"cloud": 0.02, "vllm serve": 0.02})
    rounds = Rounds(3, 11, run=servers)
    (throughput,) = measure_overhead(OURS, THEIRS, rounds, streams=1).figures
    assert throughput.name == "throughput_1"
    assert throughput.value == pytest.approx(0.3 / 0.304)
    servers.asked.clear()
    (extra,) = measure_first_token(OURS, THEIRS, rounds).figures
    assert extra.name == "ttft_extra_ms"
    assert extra.value == pytest.approx(4.0)
    assert servers.asked[2:] == ["cloud", "vllm serve", "vllm serve", "cloud", "cloud", "vllm serve"]


def test_a_round_that_ends_early_is_asked_again_and_not_for_ever() -> None:
    even = {"cloud": 0.1, "vllm serve": 0.1}
    servers = ScriptedServers(even, even, cut_short=[2])
    result = measure_overhead(OURS, THEIRS, Rounds(1, 10, run=servers), streams=4)
    assert servers.asked[2:] == ["cloud", "vllm serve", "cloud"]
    assert [figure.name for figure in result.figures] == ["throughput_4"]
    with pytest.raises(NotMeasured, match="ended before"):
        measure_overhead(OURS, THEIRS, Rounds(1, 10, run=ScriptedServers(even, even, cut_short=range(100))), streams=4)


async def test_guidance_is_read_as_streams_are() -> None:
    app = FastAPI()
    seen: list[dict[str, Any]] = []

    @app.post("/v1/guidance")
    async def guidance(request: Request) -> EventSourceResponse:
        seen.append(await request.json() | {"key": request.headers.get("authorization")})
        fails = len(seen) > 1

        async def events() -> AsyncGenerator[bytes]:
            yield encode(Start(request_id="r", model="t", template="answer@1#0", tokenizer="f"))
            yield encode(Guidance(text="a", token_ids=[1]))
            yield encode(Guidance(text="", token_ids=[2]))
            usage = Usage(prompt_tokens=9, completion_tokens=2)
            done = Done(finish_reason=FinishReason.BUDGET, usage=usage, timing=Timing(total_ms=1.0))
            yield encode(Failure(code="engine_failed", message="it died") if fails else done)

        return EventSourceResponse(events())

    async with serving(app, ready=False) as url:
        server = Server("cloud", url, api=GUIDANCE, key="k")
        (result,) = await asyncio.to_thread(run_streams, server, [StreamRequest("Why?", 2)])
        with pytest.raises(NotMeasured, match="it died"):
            await asyncio.to_thread(run_streams, server, [StreamRequest("Why?", 2)])
    assert seen[0]["messages"] == [{"role": "user", "content": "Why?"}]
    assert (seen[0]["max_guidance_tokens"], seen[0]["key"]) == (2, "Bearer k")
    assert (len(result.times), result.finish, result.completion_tokens) == (1, "length", 2)
    assert result.is_complete(StreamRequest("Why?", 2))
