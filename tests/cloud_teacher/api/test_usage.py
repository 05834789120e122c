"""The service records each computation in one row of the ledger, before it sends `done`."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, RowMapping, select

from cloud_teacher.app import create_app
from cloud_teacher.auth.caller import Allowance, Role
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.store.keys import create
from cloud_teacher.store.tables import ledger
from shared.protocol.guidance import Done, Event, Failure, Guidance, Start
from shared.protocol.sse import decode
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.processes import Process
from tests.running import serving

PRICES = {"input_usd_per_million": 1, "cached_input_usd_per_million": 0.5, "output_usd_per_million": 10}


def body(question: str = "?", **changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "max_guidance_tokens": 10, **changes}


@asynccontextmanager
async def cloud(url: str, teacher: ScriptedTeacher, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    lengths = {"max_model_len": 200, "max_prompt_tokens": 150}
    app = create_app(CloudSettings(store_url=SecretStr(url), **{**lengths, **settings}), teacher=teacher)
    async with serving(app) as base, httpx.AsyncClient(base_url=base) as client:
        yield client


def bearer(key: str, **more: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", **more}


async def ask(
    client: httpx.AsyncClient, headers: dict[str, str], request: dict[str, Any] | None = None, path: str = "guidance"
) -> list[Event]:
    async with client.stream("POST", f"/v1/{path}", json=request or body(), headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return [event async for event in decode(response)]


async def counted(client: httpx.AsyncClient) -> dict[str, float]:
    lines = (await client.get("/metrics")).text.splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line.startswith("gkt_")}


def rows(engine: Engine) -> list[RowMapping]:
    with engine.begin() as connection:
        return list(connection.execute(select(ledger).order_by(ledger.c.arrived_ms)).mappings())


async def test_a_row_says_who_what_and_how_much(store_url: str, engine: Engine) -> None:
    key = create(engine, "edge", Allowance())
    async with cloud(store_url, ScriptedTeacher("a", "b"), **PRICES) as client:
        *_, done = await ask(client, bearer(key, **{"x-request-id": "r-1"}))
        (row,) = rows(engine)
    assert isinstance(done, Done)
    assert (row["request_id"], row["key"], row["kind"], row["model"]) == ("r-1", "edge", "guidance", "scripted-teacher")
    assert row["template"].startswith("answer@1#")
    assert (row["prompt_tokens"], row["cached_tokens"], row["completion_tokens"]) == (7, 4, 2)
    assert row["cost_nano_usd"] == 3 * 1000 + 4 * 500 + 2 * 10_000
    assert done.cost_usd == pytest.approx(row["cost_nano_usd"] / 1e9)
    assert (row["finish_reason"], row["reused"]) == ("stop", None)
    assert 0 < row["first_token_ms"] <= row["total_ms"]


async def test_sums_are_what_the_service_has_counted_however_streams_end(store_url: str, engine: Engine) -> None:
    keys = {name: create(engine, name, Allowance()) for name in ("one", "two")}
    teacher = ScriptedTeacher("a", "b", "c", "d", dies_after=3)
    teacher.doubted = "!"
    async with cloud(store_url, teacher, **PRICES) as client:
        for at in range(3):
            await ask(client, bearer(keys["one"]), body("x" * at, max_guidance_tokens=2))
        *_, failure = await ask(client, bearer(keys["two"]))
        assert isinstance(failure, Failure)
        review = body(answer="1", draft=" + !", acceptance_threshold=0.1, max_guidance_tokens=2)
        assert isinstance((await ask(client, bearer(keys["two"]), review, "review"))[-1], Done)
        teacher.gate.clear()
        async with client.stream("POST", "/v1/guidance", json=body(), headers=bearer(keys["one"])) as response:
            events = decode(response)
            assert isinstance(await anext(events), Start)
            assert isinstance(await anext(events), Guidance)
        assert await client.post("/v1/guidance", json=body(max_guidance_tokens=9999), headers=bearer(keys["one"]))
        while len(rows(engine)) < 6:
            await asyncio.sleep(0.01)
        found, metrics = rows(engine), await counted(client)
        report = (await client.get("/v1/usage", headers=bearer(keys["two"]))).json()["days"]
    assert Counter(row["finish_reason"] for row in found) == {"budget": 4, "engine_failed": 1, "client_disconnected": 1}
    for column, metric in [
        ("prompt_tokens", "gkt_cloud_prompt_tokens_total"),
        ("cached_tokens", "gkt_cloud_cached_tokens_total"),
        ("completion_tokens", "gkt_cloud_output_tokens_total"),
    ]:
        assert sum(row[column] for row in found) == metrics[metric] > 0
    assert sum(row["cost_nano_usd"] for row in found) / 1e9 == pytest.approx(metrics["gkt_cloud_cost_usd_total"])
    mine = [row for row in found if row["key"] == "two"]
    assert [(day["key"], day["requests"]) for day in report] == [("two", 2)]
    assert report[0]["completion_tokens"] == sum(row["completion_tokens"] for row in mine)


async def test_a_key_sees_its_own_usage_and_an_operator_everyones(store_url: str, engine: Engine) -> None:
    one, two = create(engine, "one", Allowance()), create(engine, "two", Allowance())
    operator = create(engine, "boss", Allowance(), role=Role.OPERATOR)
    async with cloud(store_url, ScriptedTeacher("a")) as client:
        await ask(client, bearer(one))
        await ask(client, bearer(two))

        async def seen(bearer_key: str, **query: str) -> list[str]:
            response = await client.get("/v1/usage", params=query, headers=bearer(bearer_key))
            assert response.status_code == 200
            return [day["key"] for day in response.json()["days"]]

        assert await seen(one) == ["one"]
        assert await seen(two, key="two") == ["two"]
        assert await seen(operator) == ["one", "two"]
        assert await seen(operator, key="two") == ["two"]
        assert await seen(operator, until="2020-01-01") == []
        other = await client.get("/v1/usage", params={"key": "two"}, headers=bearer(one))
        assert other.status_code == 404
        assert (await client.get("/v1/usage")).status_code == 401
        assert (await client.get("/v1/usage", params={"since": "x"}, headers=bearer(one))).status_code == 400


async def test_without_a_database_there_is_no_usage_to_see() -> None:
    app = create_app(CloudSettings(), teacher=ScriptedTeacher("a"))
    async with serving(app) as base, httpx.AsyncClient(base_url=base) as client:
        assert (await client.get("/v1/usage")).status_code == 404


@pytest.mark.system
async def test_what_was_said_to_be_done_outlives_sigkill(store_url: str, engine: Engine, tmp_path: Path) -> None:
    key = create(engine, "edge", Allowance())
    process = Process("tests.cloud_teacher.scripted_cloud", {"GKT_CLOUD_STORE_URL": store_url}, tmp_path)
    done: list[str] = []
    enough = asyncio.Event()

    async def keep_asking(client: httpx.AsyncClient, edge: int) -> None:
        for at in range(10_000):
            name = f"{edge}-{at}"
            events = await ask(client, bearer(key, **{"x-request-id": name}), body(name))
            assert isinstance(events[-1], Done)
            done.append(name)
            if len(done) == 100:
                enough.set()

    try:
        process.wait_until_ready()
        async with httpx.AsyncClient(base_url=process.url(), timeout=60) as client:
            edges = [asyncio.create_task(keep_asking(client, edge)) for edge in range(20)]
            await enough.wait()
            process.end(signal.SIGKILL)
            await asyncio.gather(*edges, return_exceptions=True)
    finally:
        process.kill()
    written = Counter(row["request_id"] for row in rows(engine))
    assert [name for name in done if written[name] != 1] == []
    assert max(written.values()) == 1
    assert all(row["completion_tokens"] == 5 for row in rows(engine) if row["request_id"] in done)
