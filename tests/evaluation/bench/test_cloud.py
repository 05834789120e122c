"""The bench of the cloud against vLLM's own server, with scripted servers, and the load generator's parser of guidance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse

from evaluation.bench import rounds
from evaluation.bench.cloud_overhead import measure_first_token, measure_overhead
from evaluation.bench.rounds import Effort
from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Ask, GuidanceApi, Server, Written
from evaluation.loadgen.generator import together
from shared.protocol.guidance import Done, Failure, FinishReason, Guidance, Start, Timing, Usage
from shared.protocol.sse import encode
from tests.running import serving


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "REST_S", 0)


OURS, THEIRS = Server("cloud", "http://cloud"), Server("vllm serve", "http://vllm")


class Crowd:
    """Servers that take a known time for the first token and each further one. Requests of `cut_short` end early."""

    def __init__(
        self, first_s: Mapping[str, float], token_s: Mapping[str, float], cut_short: Sequence[int] = ()
    ) -> None:
        self.asked: list[str] = []
        self._first_s, self._token_s, self._cut_short = first_s, token_s, cut_short

    def __call__(self, server: Server, asks: Sequence[Ask], *, late: Ask | None = None) -> list[Written]:
        short = len(self.asked) in self._cut_short
        self.asked.append(server.name)
        return [self._written(server, ask, short=short) for ask in asks]

    def _written(self, server: Server, ask: Ask, *, short: bool) -> Written:
        count = ask.max_tokens // 2 if short else ask.max_tokens
        times = [self._first_s[server.name] + at * self._token_s[server.name] for at in range(count)]
        return Written(0.0, times, times[-1], "stop" if short else "length", 5, count)


def test_both_take_turns_and_ratios_are_those_of_a_round() -> None:
    crowd = Crowd({"cloud": 0.104, "vllm serve": 0.1}, {"cloud": 0.02, "vllm serve": 0.02})
    effort = Effort(rounds=3, tokens=11)
    (throughput,) = measure_overhead(OURS, THEIRS, 1, effort, lambda _: None, ask=crowd).figures
    assert throughput.name == "throughput_1"
    assert throughput.value == pytest.approx(0.3 / 0.304)
    crowd.asked.clear()
    (extra,) = measure_first_token(OURS, THEIRS, effort, lambda _: None, ask=crowd).figures
    assert extra.name == "ttft_extra_ms"
    assert extra.value == pytest.approx(4.0)
    assert crowd.asked[2:] == ["cloud", "vllm serve", "vllm serve", "cloud", "cloud", "vllm serve"]


def test_a_round_that_ends_early_is_asked_again_and_not_for_ever() -> None:
    even = {"cloud": 0.1, "vllm serve": 0.1}
    crowd = Crowd(even, even, cut_short=[2])
    result = measure_overhead(OURS, THEIRS, 4, Effort(rounds=1, tokens=10), lambda _: None, ask=crowd)
    assert len(crowd.asked) == 2 + 4
    assert [figure.name for figure in result.figures] == ["throughput_4"]
    with pytest.raises(NotMeasured, match="ended before"):
        measure_overhead(OURS, THEIRS, 4, Effort(1, 10), lambda _: None, ask=Crowd(even, even, cut_short=range(100)))


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
        server = Server("cloud", url, api=GuidanceApi(), key="k")
        (written,) = await asyncio.to_thread(together, server, [Ask("Why?", 2)])
        with pytest.raises(NotMeasured, match="it died"):
            await asyncio.to_thread(together, server, [Ask("Why?", 2)])
    assert seen[0]["messages"] == [{"role": "user", "content": "Why?"}]
    assert (seen[0]["max_guidance_tokens"], seen[0]["key"]) == (2, "Bearer k")
    assert (len(written.times), written.finish, written.completion_tokens) == (1, "length", 2)
    assert written.full(Ask("Why?", 2))
