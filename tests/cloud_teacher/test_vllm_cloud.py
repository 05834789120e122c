"""The cloud as a real process, with a real model on vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from shared.protocol.guidance import Done, Event, FinishReason, Guidance, Verdict
from shared.protocol.sse import decode
from tests.collector import Exported
from tests.conftest import CLOUD_MODEL, CloudProcess

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
async def client(cloud_process: CloudProcess) -> AsyncGenerator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=cloud_process.url, headers=cloud_process.headers, timeout=60) as client:
        yield client


def body(question: str, budget: int, **changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "max_guidance_tokens": budget, **changes}


async def ask(client: httpx.AsyncClient, request: dict[str, Any], **headers: str) -> tuple[list[Guidance], Done]:
    async with client.stream("POST", "/v1/guidance", json=request, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        events: list[Event] = [event async for event in decode(response)]
    done = events[-1]
    assert isinstance(done, Done)
    return [event for event in events if isinstance(event, Guidance)], done


def text(guidance: list[Guidance]) -> str:
    return "".join(event.text for event in guidance)


def ids(guidance: list[Guidance]) -> list[int]:
    return [token for event in guidance for token in event.token_ids]


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def until(client: httpx.AsyncClient, name: str, value: float) -> None:
    while await metric(client, name) != value:
        await asyncio.sleep(0.01)


async def test_the_engines_own_span_is_of_the_clients_trace(
    client: httpx.AsyncClient, cloud_process: CloudProcess
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    await ask(client, body("Hello", 2), traceparent=f"00-{trace}-00f067aa0ba902b7-01")

    def ours(name: str) -> list[Exported]:
        return [span for span in cloud_process.traces.spans if (span.trace_id, span.name) == (trace, name)]

    while not (ours(f"chat {CLOUD_MODEL}") and ours("llm_request")):
        await asyncio.sleep(0.05)
    (request,), (engine,) = ours(f"chat {CLOUD_MODEL}"), ours("llm_request")
    assert request.parent_id == "00f067aa0ba902b7"
    assert engine.parent_id == request.span_id
    assert engine.service == request.service == "gkt-cloud"


def test_while_the_model_loads_it_says_so(cloud_process: CloudProcess) -> None:
    assert cloud_process.health_while_loading.status_code == 200
    ready = cloud_process.ready_while_loading
    assert ready.status_code == 503
    assert ready.json() == {"status": "loading", "model": CLOUD_MODEL, "detail": "the teacher is still loading"}
    guidance = cloud_process.guidance_while_loading
    assert guidance.status_code == 503
    assert guidance.json()["error"]["code"] == "not_ready"
    assert int(guidance.headers["retry-after"]) >= 1


async def test_greedy_guidance_is_the_same_each_time_and_is_counted(client: httpx.AsyncClient) -> None:
    before = await metric(client, "vllm:generation_tokens_total")
    first, done = await ask(client, body("What is the capital of France?", 7, logprobs=True))
    again, _ = await ask(client, body("What is the capital of France?", 7))
    assert "Paris" in text(first)
    assert ids(again) == ids(first)
    assert text(again) == text(first)
    assert (done.finish_reason, done.usage.completion_tokens, len(ids(first))) == (FinishReason.BUDGET, 7, 7)
    for event in first:
        assert event.logprobs is not None
        assert len(event.logprobs) == len(event.token_ids)
        assert all(logprob <= 0 for logprob in event.logprobs)
    assert all(event.logprobs is None for event in again)
    assert 0 < (done.timing.first_token_ms or 0) < done.timing.total_ms
    assert await metric(client, "vllm:generation_tokens_total") == before + 14


async def test_the_models_own_end_ends_it(client: httpx.AsyncClient) -> None:
    guidance, done = await ask(client, body("Answer with one word only: what is the capital of France?", 200))
    assert done.finish_reason is FinishReason.STOP
    assert done.usage.completion_tokens == len(ids(guidance)) < 200
    assert "<|im_end|>" not in text(guidance)


async def test_a_seed_makes_sampling_repeatable(client: httpx.AsyncClient) -> None:
    request = body("Tell me a story.", 12, temperature=1.5)
    first, again, other = [ids((await ask(client, {**request, "seed": seed}))[0]) for seed in (7, 7, 8)]
    assert first == again
    assert first != other


async def test_a_prompt_seen_before_is_read_from_the_cache(client: httpx.AsyncClient) -> None:
    request = body("Count with me. " + " ".join(map(str, range(200))), 1)
    _, cold = await ask(client, request)
    _, warm = await ask(client, request)
    assert cold.usage.cached_tokens < 128 <= warm.usage.cached_tokens <= warm.usage.prompt_tokens


async def test_two_requests_with_one_id_at_once(client: httpx.AsyncClient) -> None:
    request = body("Tell me a story.", 20)
    answers = await asyncio.gather(*[ask(client, request, **{"x-request-id": "same"}) for _ in range(2)])
    assert [done.usage.completion_tokens for _, done in answers] == [20, 20]


async def test_a_prompt_too_long_for_the_teacher(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/guidance", json=body("word " * 5000, 1))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "prompt_too_long"
    assert "3072" in response.json()["error"]["message"]


async def test_a_client_that_leaves_stops_the_engine_within_a_step(client: httpx.AsyncClient) -> None:
    gone, spoken = 'gkt_cloud_requests_total{outcome="client_disconnected"}', "vllm:generation_tokens_total"
    before, gone_before = await metric(client, spoken), await metric(client, gone)
    read = 0
    async with client.stream("POST", "/v1/guidance", json=body("Tell me a long story.", 1000)) as response:
        async for event in decode(response):
            read += isinstance(event, Guidance)
            if read == 3:
                break
    await until(client, gone, gone_before + 1)
    after = await metric(client, spoken)
    assert read <= after - before <= read + 3  # tokens in the engine and on the wire
    # If the engine continued the cancelled request, it would now generate for both.
    await ask(client, body("What is the capital of France?", 5))
    assert await metric(client, spoken) <= after + 5 + 1
    await until(client, "vllm:num_requests_running", 0)


async def test_penalties_and_cut_offs_are_the_engines_too(client: httpx.AsyncClient) -> None:
    request = body("Say one two one two one two one two, again and again.", 24)
    plain = ids((await ask(client, request))[0])
    assert len(set(plain)) < len(plain)
    varied = ids((await ask(client, {**request, "presence_penalty": 2.0, "repetition_penalty": 20.0}))[0])
    assert len(set(varied)) == len(varied)
    drawn = {**request, "temperature": 2.0, "seed": 1}
    assert ids((await ask(client, drawn))[0]) != plain
    for narrow in ({"top_k": 1}, {"min_p": 1.0}):
        assert ids((await ask(client, {**drawn, **narrow}))[0]) == plain


async def review(client: httpx.AsyncClient, answer: str, step: str, **more: Any) -> tuple[Verdict, str, Done]:
    request = body(
        "What is the capital of France?",
        20,
        answer=answer,
        draft=step,
        acceptance_threshold=0.05,
        stop_at_line_end=True,
        **more,
    )
    async with client.stream("POST", "/v1/review", json=request) as response:
        assert response.status_code == 200, await response.aread()
        _, verdict, *guidance, done = [event async for event in decode(response)]
    assert isinstance(verdict, Verdict)
    assert isinstance(done, Done)
    return verdict, text([event for event in guidance if isinstance(event, Guidance)]), done


async def test_the_teachers_own_words_are_accepted_wherever_they_are_cut(client: httpx.AsyncClient) -> None:
    own, _ = await ask(client, body("What is the capital of France?", 48))
    # More cuts than a block of the prefix cache has tokens, so that at one of them the cached part ends where the draft begins.
    for at in range(len(own) - 4):
        verdict, guidance, _ = await review(client, text(own[:at]), text(own[at : at + 3]))
        assert verdict.accepted, (text(own[:at]), text(own[at : at + 3]))
        assert verdict.scored_tokens
        assert guidance == ""


async def test_a_wrong_word_is_doubted_and_rewritten(client: httpx.AsyncClient) -> None:
    verdict, guidance, done = await review(client, "", "The capital of France is London.")
    assert not verdict.accepted
    assert "The capital of France is London."[: verdict.accepted_chars] in "The capital of France is London"
    assert guidance
    assert done.usage.completion_tokens
    again, same, _ = await review(client, "", "The capital of France is London.")
    assert (again.accepted_chars, same) == (verdict.accepted_chars, guidance), "cached or not, the verdict is the same"


async def test_the_ledger_adds_up_to_what_the_engine_has_counted(client: httpx.AsyncClient) -> None:
    async def counted() -> tuple[float, float, float, float]:
        days = (await client.get("/v1/usage")).json()["days"]
        told = [float(sum(day[name] for day in days)) for name in ("prompt_tokens", "completion_tokens")]
        engine = [await metric(client, f"vllm:{name}_tokens_total") for name in ("prompt", "generation")]
        return told[0], told[1], engine[0], engine[1]

    before = await counted()
    questions = [("Name a colour.", 5, 0.0), ("Name a colour, quickly.", 9, 0.0), ("Tell me of the sea.", 17, 0.9)]
    await asyncio.gather(
        *[ask(client, body(question, budget, temperature=heat, seed=1)) for question, budget, heat in questions]
    )
    prompt, written, engine_prompt, engine_written = (
        after - then for after, then in zip(await counted(), before, strict=True)
    )
    assert (prompt, written) == (engine_prompt, engine_written)
    assert written > 3
