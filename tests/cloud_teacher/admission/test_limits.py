"""Limits of keys, as callers see them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import SecretStr
from sqlalchemy import Engine, func, select

from cloud_teacher.app import create_app
from cloud_teacher.auth.caller import Allowance
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.store.keys import create
from cloud_teacher.store.rows import usage
from cloud_teacher.store.tables import reservations
from cloud_teacher.teachers.base import SchedulingHints
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.running import serving


def body(question: str = "?", **changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "max_guidance_tokens": 10, **changes}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@asynccontextmanager
async def cloud(url: str | None, teacher: ScriptedTeacher, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    lengths = {"max_model_len": 200, "max_prompt_tokens": 150, "store_url": SecretStr(url) if url else None}
    app = create_app(CloudSettings(**{**lengths, **settings}), teacher=teacher)
    async with serving(app) as base, httpx.AsyncClient(base_url=base, timeout=60) as client:
        yield client


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def until(client: httpx.AsyncClient, name: str, value: float) -> None:
    while await metric(client, name) != value:
        await asyncio.sleep(0.01)


async def test_a_days_budget_is_not_exceeded_however_many_ask_at_once(store_url: str, engine: Engine) -> None:
    key = create(engine, "edge", Allowance(daily_tokens=100))
    teacher = ScriptedTeacher("a", "b", "c")
    async with cloud(store_url, teacher, max_running=100) as one, cloud(store_url, teacher, max_running=100) as two:
        # 8 tokens of prompt and 10 of guidance at most, of which it writes 3.
        asks = [
            client.post("/v1/guidance", json=body(f"{at}"), headers=bearer(key))
            for at in range(15)
            for client in (one, two)
        ]
        answers = await asyncio.gather(*asks)
        refused = [answer for answer in answers if answer.status_code != 200]
        assert Counter(answer.json()["error"]["code"] for answer in refused) == {"budget_spent": len(refused)}
        assert all(0 < int(answer.headers["retry-after"]) <= 3600 for answer in refused)
        assert len(refused) >= 30 - 100 // 10
        assert len(refused) < 30
        too_much = await one.post("/v1/guidance", json=body("x" * 100), headers=bearer(key))
        assert (too_much.status_code, too_much.json()["error"]["code"]) == (400, "budget_too_large")
    (day,) = usage(engine)
    assert day.requests == 30 - len(refused)
    assert day.prompt_tokens + day.completion_tokens <= 100
    with engine.begin() as connection:
        assert connection.scalar(select(func.count()).select_from(reservations)) == 0


async def test_a_budget_in_money_is_by_the_most_that_a_request_can_cost(store_url: str, engine: Engine) -> None:
    key = create(engine, "edge", Allowance(daily_nano_usd=100_000))
    async with cloud(
        store_url, ScriptedTeacher(*"abcdefghij"), input_usd_per_million=1, output_usd_per_million=4
    ) as client:
        asked = [client.post("/v1/guidance", json=body(f"{at}"), headers=bearer(key)) for at in range(10)]
        statuses = Counter(answer.status_code for answer in await asyncio.gather(*asked))
    assert statuses == {200: 2, 429: 8}
    assert usage(engine)[0].cost_nano_usd == 2 * (7 * 1000 + 10 * 4000)


async def test_a_client_that_leaves_while_it_waits_leaves_the_queue() -> None:
    teacher = ScriptedTeacher("a", "b")
    teacher.gate.clear()
    async with cloud(None, teacher, max_running=1) as client:
        async with client.stream("POST", "/v1/guidance", json=body("1")) as response:
            assert response.status_code == 200
            waiting = asyncio.create_task(client.post("/v1/guidance", json=body("2")))
            staying = asyncio.create_task(client.post("/v1/guidance", json=body("3")))
            await until(client, "gkt_cloud_requests_waiting", 2)
            waiting.cancel()
            await until(client, "gkt_cloud_requests_waiting", 1)
            teacher.gate.set()
            await response.aread()
        assert (await staying).status_code == 200
    assert [prompt[-2] for prompt in teacher.prompts] == ["1", "3"]


async def test_priority_and_a_salt_for_the_prefix_cache_reach_the_engine(store_url: str, engine: Engine) -> None:
    keys = [create(engine, "one", Allowance(priority=-2)), create(engine, "two", Allowance())]
    teacher = ScriptedTeacher("a")
    teacher.doubted = "?"
    async with cloud(store_url, teacher) as client:
        await client.post("/v1/guidance", json=body(), headers=bearer(keys[0]))
        review = body(draft="so?", acceptance_threshold=0.1, priority=7, cache_salt="alice")
        await client.post("/v1/review", json=review, headers=bearer(keys[1]))
    assert teacher.hints == [
        SchedulingHints(-2, "one"),
        SchedulingHints(7, "two/alice"),
        SchedulingHints(7, "two/alice"),
    ]
