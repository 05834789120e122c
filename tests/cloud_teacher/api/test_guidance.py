from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from cloud_teacher.app import create_app
from cloud_teacher.config.settings import CloudSettings
from shared.protocol.content_digest import content_digest
from shared.protocol.guidance import Done, Event, Failure, FinishReason, Guidance, Start
from shared.protocol.sse import decode
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.running import serving

KEY = "open-sesame"
QUESTION = [{"role": "user", "content": "a secret question"}]


def body(**changes: Any) -> dict[str, Any]:
    return {"messages": QUESTION, "max_guidance_tokens": 10, **changes}


@asynccontextmanager
async def cloud(teacher: ScriptedTeacher, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    limits = {
        "keys": [KEY],
        "coalesce": "off",
        "max_prompt_tokens": 100,
        "max_guidance_tokens": 150,
        "max_model_len": 200,
        **settings,
    }
    app = create_app(CloudSettings(**limits), teacher=teacher)
    async with (
        serving(app) as url,
        httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {KEY}"}) as client,
    ):
        yield client


async def ask(client: httpx.AsyncClient, request: dict[str, Any] | None = None, **headers: str) -> list[Event]:
    async with client.stream("POST", "/v1/guidance", json=request or body(), headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return [event async for event in decode(response)]


async def error(client: httpx.AsyncClient, **request: Any) -> tuple[int, str, dict[str, Any]]:
    response = await client.post("/v1/guidance", **request)
    detail = response.json()["error"]
    return response.status_code, detail["code"], detail


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def test_a_stream_starts_tells_and_ends_once() -> None:
    teacher = ScriptedTeacher("Paris", " is", " it")
    async with cloud(teacher) as client:
        async with client.stream(
            "POST", "/v1/guidance", json=body(logprobs=True), headers={"x-request-id": "r-1"}
        ) as got:
            assert got.headers["content-type"].startswith("text/event-stream")
            assert got.headers["x-request-id"] == "r-1"
            raw = (await got.aread()).decode()
        start, *guidance, done = await ask(client, body(logprobs=True), **{"x-request-id": "r-1"})
    assert [line for line in raw.splitlines() if line.startswith("event")] == [
        "event: start", "event: guidance", "event: guidance", "event: guidance", "event: done",
    ]  # fmt: skip
    assert isinstance(start, Start)
    assert (start.request_id, start.model, start.tokenizer) == ("r-1", "scripted-teacher", "f1a9")
    assert start.template.startswith("answer@1#")
    assert [(g.text, g.token_ids, g.logprobs) for g in guidance if isinstance(g, Guidance)] == [
        ("Paris", [0], [-0.5]), (" is", [1], [-0.5]), (" it", [2], [-0.5]),
    ]  # fmt: skip
    assert isinstance(done, Done)
    assert done.finish_reason is FinishReason.STOP
    assert (done.usage.prompt_tokens, done.usage.cached_tokens, done.usage.completion_tokens) == (23, 4, 3)
    assert done.timing.queue_ms == 2
    assert 0 < (done.timing.first_token_ms or 0) <= done.timing.total_ms
    assert done.cost_usd is None
    assert teacher.prompts[0] == "user:a secret question\n"


async def test_the_end_is_named_after_its_cause() -> None:
    teacher = ScriptedTeacher(*["x"] * 200)
    async with cloud(teacher, max_prompt_tokens=199) as client:
        *_, budget = await ask(client, body(max_guidance_tokens=5))
        fill = {"role": "user", "content": "x" * 184}  # 190 tokens: 10 are left
        *_, exact = await ask(client, body(messages=[fill], max_guidance_tokens=10))
        *_, length = await ask(client, body(messages=[fill], max_guidance_tokens=11))
    assert isinstance(budget, Done)
    assert isinstance(exact, Done)
    assert isinstance(length, Done)
    assert (budget.finish_reason, budget.usage.completion_tokens) == (FinishReason.BUDGET, 5)
    assert (exact.finish_reason, exact.usage.completion_tokens) == (FinishReason.BUDGET, 10)
    assert (length.finish_reason, length.usage.completion_tokens) == (FinishReason.LENGTH, 10)


async def test_sampling_is_passed_on_and_cost_is_by_the_operators_prices() -> None:
    teacher = ScriptedTeacher("a", "b")
    prices = {"input_usd_per_million": 1, "cached_input_usd_per_million": 0.5, "output_usd_per_million": 10}
    async with cloud(teacher, **prices) as client:
        *_, done = await ask(client, body(temperature=0.7, top_p=0.9, seed=-3))
    sampling = teacher.params[0]
    assert (sampling.temperature, sampling.top_p, sampling.seed, sampling.logprobs) == (0.7, 0.9, -3, False)
    assert isinstance(done, Done)
    assert done.cost_usd == pytest.approx((19 * 1 + 4 * 0.5 + 2 * 10) / 1e6)


async def test_two_requests_with_one_id_are_apart_in_the_engine() -> None:
    teacher = ScriptedTeacher("a", "b")
    async with cloud(teacher) as client:
        answers = await asyncio.gather(*[ask(client, body(), **{"x-request-id": "same"}) for _ in range(2)])
    assert len(set(teacher.request_ids)) == 2
    assert all(isinstance(events[0], Start) and events[0].request_id == "same" for events in answers)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", "Bearer \xfcber"])
async def test_without_the_key_nobody_comes_in(header: str | None) -> None:
    teacher = ScriptedTeacher("a")
    async with cloud(teacher) as client:
        headers = {b"authorization": (header or "").encode("latin-1")}
        response = await client.post("/v1/guidance", json=body(), headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"
    assert not teacher.prompts


async def test_what_is_wrong_with_a_request_has_its_own_status_and_says_the_numbers() -> None:
    async with cloud(ScriptedTeacher("a"), max_body_bytes=5_000) as client:
        status, code, detail = await error(client, json=body(messages=[{"role": "user", "content": "x" * 200}]))
        assert (status, code, detail["param"]) == (400, "prompt_too_long", "messages")
        assert "206" in detail["message"]
        assert "100" in detail["message"]

        status, code, detail = await error(client, json=body(max_guidance_tokens=151))
        assert (status, code, detail["param"]) == (400, "budget_too_large", "max_guidance_tokens")
        assert "151" in detail["message"]
        assert "150" in detail["message"]

        assert (await error(client, json=body(template="nonsense")))[:2] == (404, "template_not_found")
        assert (await error(client, content=b"x" * 6_000))[:2] == (413, "body_too_large")

        for wrong, field in [
            (body(max_guidance_tokens=0), "max_guidance_tokens"),
            (body(max_guidance_tokens=-5), "max_guidance_tokens"),
            (body(messages=[]), "messages"),
            (body(messages=[{"role": "wizard", "content": ""}]), "messages.0.role"),
            (body(temperature=-1), "temperature"),
            (body(top_p=0), "top_p"),
            (body(seed=2**70), "seed"),
        ]:
            status, code, detail = await error(client, json=wrong)
            assert (status, code, detail["param"]) == (400, "invalid_request", field)
        assert len(await ask(client)) == 3


async def test_bodies_that_are_hardly_json_are_refused_and_the_next_request_works() -> None:
    async with cloud(ScriptedTeacher("a"), max_body_bytes=500_000) as client:
        for content in [
            b"",
            b"[]",
            b"{",
            b'{"messages": ' + b"[" * 100_000,
            b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            json.dumps(body(temperature=float("nan"))).encode(),
            json.dumps(body(temperature=float("inf"))).encode(),
            json.dumps(body()).encode().replace(b"secret", b"\xff\xfe"),
            json.dumps(body(messages=[{"role": "user", "content": "\ud800"}])).encode(),
        ]:
            status, code, _ = await error(client, content=content, headers={"content-type": "application/json"})
            assert (status, code) == (400, "invalid_request"), content[:60]
        assert len(await ask(client)) == 3


async def test_a_body_of_undeclared_size_is_counted() -> None:
    async def chunks() -> AsyncGenerator[bytes]:
        for _ in range(10):
            yield b" " * 1000

    async with cloud(ScriptedTeacher("a"), max_body_bytes=5_000) as client:
        headers = {"content-type": "application/json"}
        assert (await error(client, content=chunks(), headers=headers))[:2] == (413, "body_too_large")
        assert len(await ask(client)) == 3


@asynccontextmanager
async def held(client: httpx.AsyncClient) -> AsyncGenerator[httpx.Response]:
    """Open a stream that runs until its end is awaited or the block is left."""
    async with client.stream("POST", "/v1/guidance", json=body()) as response:
        assert response.status_code == 200
        yield response


async def test_more_requests_than_may_run_are_told_when_to_come_back() -> None:
    teacher = ScriptedTeacher("a", "b")
    teacher.gate.clear()
    async with cloud(teacher, max_running=2, max_queue=0) as client:
        async with held(client), held(client):
            response = await client.post("/v1/guidance", json=body())
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "overloaded"
            assert response.json()["error"]["retryable"] is True
            assert int(response.headers["retry-after"]) >= 1
            assert await metric(client, "gkt_cloud_requests_running") == 2
        teacher.gate.set()
        assert {await teacher.stopped.get() for _ in range(2)} == set(teacher.request_ids)
        assert len(await ask(client)) == 4


async def test_one_key_may_not_take_every_place() -> None:
    teacher = ScriptedTeacher("a", "b")
    teacher.gate.clear()
    async with cloud(teacher, keys=[KEY, "another"], max_running_per_key=1) as client, held(client):
        assert (await error(client, json=body()))[:2] == (429, "too_many_requests")
        teacher.gate.set()
        assert len(await ask(client, authorization="Bearer another")) == 4


async def test_an_engine_that_fails_in_mid_stream_ends_it_with_an_error_event(caplog: pytest.LogCaptureFixture) -> None:
    async with cloud(ScriptedTeacher("a", "b", "c", dies_after=2)) as client:
        *_, last, failure = await ask(client)
        assert isinstance(last, Guidance)
        assert isinstance(failure, Failure)
        assert (failure.code, failure.retryable) == ("engine_failed", False)
        assert await metric(client, 'gkt_cloud_requests_total{outcome="engine_failed"}') == 1
        assert await metric(client, "gkt_cloud_output_tokens_total") == 2
    assert [record.levelname for record in caplog.records if failure.message in record.getMessage()] == ["WARNING"]


async def test_a_crash_in_mid_stream_tells_nothing_of_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    async with cloud(ScriptedTeacher("a", "b", dies_after=1, error=RuntimeError("inside"))) as client:
        *_, failure = await ask(client)
    assert isinstance(failure, Failure)
    assert failure.code == "internal_error"
    assert "inside" not in failure.message
    assert "inside" in caplog.text


async def test_a_client_that_leaves_closes_the_teachers_stream() -> None:
    teacher = ScriptedTeacher("a", "b")
    teacher.gate.clear()
    async with cloud(teacher) as client:
        async with held(client) as response:
            events = decode(response)
            assert isinstance(await anext(events), Start)
            assert isinstance(await anext(events), Guidance)
        assert await teacher.stopped.get() == teacher.request_ids[0]
        assert await metric(client, 'gkt_cloud_requests_total{outcome="client_disconnected"}') == 1
        assert await metric(client, "gkt_cloud_requests_running") == 0


async def test_metrics_are_ours_and_then_the_engines() -> None:
    async with cloud(ScriptedTeacher("a", "b", "c")) as client:
        await ask(client)
        text = (await client.get("/metrics")).text
        assert text.index("gkt_cloud_requests_total") < text.index("fake_generation_tokens_total")
        assert await metric(client, "gkt_cloud_prompt_tokens_total") == 23
        assert await metric(client, "gkt_cloud_cached_tokens_total") == 4
        assert await metric(client, "gkt_cloud_output_tokens_total") == 3
        assert await metric(client, "gkt_cloud_time_to_first_token_seconds_count") == 1
        assert await metric(client, "gkt_cloud_inter_token_latency_seconds_count") == 2


async def test_logs_hold_no_text_of_anyone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with cloud(ScriptedTeacher("private", "answer")) as client:
        await ask(client)
        await client.post("/v1/guidance", json=body(temperature="a secret number"))
    logged = " ".join(
        f"{record.getMessage()} {record.exc_text}" for record in caplog.records if record.name.startswith("gkt")
    )
    assert "2 output tokens" in logged
    assert not any(word in logged for word in ("secret", "private", "answer", KEY))


async def test_an_engine_that_dies_is_told_and_not_asked_again() -> None:
    teacher = ScriptedTeacher("a")
    failed = asyncio.Event()
    app = create_app(CloudSettings(), teacher=teacher, on_failure=failed.set)
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as client:
        teacher.dead = True
        assert (await client.get("/ready")).json()["status"] == "failed"
        assert (await error(client, json=body()))[:2] == (500, "engine_failed")
        await failed.wait()
        ready = await client.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["detail"] == "the engine's process has died"
        assert (await client.get("/health")).status_code == 200
    assert teacher.closed


async def test_a_body_that_was_changed_on_its_way_is_refused() -> None:
    teacher = ScriptedTeacher("Paris")
    sent = json.dumps(body()).encode()
    headers = {"content-type": "application/json", "content-digest": content_digest(sent)}
    async with cloud(teacher) as client:
        whole = await client.post("/v1/guidance", content=sent, headers=headers)
        changed = await error(client, content=sent.replace(b"secret", b"sacred"), headers=headers)

    assert whole.status_code == 200
    assert changed[:2] == (400, "body_damaged")
    assert len(teacher.prompts) == 1
