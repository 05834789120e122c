"""The teacher computes the same question once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select

from cloud_teacher.accounting.usage import UsageRecord
from cloud_teacher.app import create_app
from cloud_teacher.auth.caller import Allowance
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.guidance.response_cache import ENTRY_TOKENS, ResponseCache
from cloud_teacher.store.keys import create
from cloud_teacher.store.rows import usage
from cloud_teacher.store.tables import ledger
from shared.protocol.guidance import (
    Done,
    Event,
    Failure,
    Guidance,
    Start,
    Verdict,
)
from shared.protocol.sse import decode
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.running import serving

PRICES = {"input_usd_per_million": 1, "cached_input_usd_per_million": 0.5, "output_usd_per_million": 10}


def body(question: str = "?", **changes: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "max_guidance_tokens": 10, **changes}


@asynccontextmanager
async def cloud(teacher: ScriptedTeacher, **settings: Any) -> AsyncGenerator[httpx.AsyncClient]:
    lengths = {"max_model_len": 200, "max_prompt_tokens": 150, "keys": ("one", "two")}
    app = create_app(CloudSettings(**{**lengths, **settings}), teacher=teacher)
    async with serving(app) as base, httpx.AsyncClient(base_url=base, timeout=60) as client:
        yield client


class Reader:
    """Reads a stream in a task of its own."""

    def __init__(self, client: httpx.AsyncClient, request: dict[str, Any], path: str, headers: dict[str, str]) -> None:
        self.events: list[Event] = []
        self.begun = asyncio.Event()
        self.task = asyncio.create_task(self._read(client, request, path, headers))

    async def _read(
        self, client: httpx.AsyncClient, request: dict[str, Any], path: str, headers: dict[str, str]
    ) -> None:
        async with client.stream("POST", f"/v1/{path}", json=request, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            async for event in decode(response):
                self.events.append(event)
                if isinstance(event, Guidance):
                    self.begun.set()

    @property
    def text(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Guidance)]

    @property
    def done(self) -> Done:
        last = self.events[-1]
        assert isinstance(last, Done)
        return last

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def read(
    client: httpx.AsyncClient,
    request: dict[str, Any] | None = None,
    path: str = "guidance",
    *,
    key: str = "one",
    request_id: str = "r",
) -> Reader:
    return Reader(client, request or body(), path, {"authorization": f"Bearer {key}", "x-request-id": request_id})


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


async def test_who_comes_late_hears_what_was_written_and_then_goes_along() -> None:
    teacher = ScriptedTeacher("a", "b", "c")
    teacher.gate.clear()
    async with cloud(teacher) as client:
        first = read(client, request_id="r-1")
        await first.begun.wait()
        late = [read(client, request_id=f"r-{at}") for at in (2, 3)]
        for reader in late:
            await reader.begun.wait()
        teacher.gate.set()
        for reader in (first, *late):
            await reader.task
            assert reader.text == ["a", "b", "c"]
        assert await metric(client, 'gkt_cloud_reused_requests_total{kind="coalesced"}') == 2
        assert await metric(client, "gkt_cloud_reused_tokens_total") == 6
        assert await metric(client, "gkt_cloud_output_tokens_total") == 3
        again = read(client)
        await again.task
    assert len(teacher.request_ids) == 2, "and nothing is kept unless the operator says so"
    assert [reader.done.reused for reader in (first, *late, again)] == [None, "coalesced", "coalesced", None]
    assert late[0].done.usage == first.done.usage
    start = late[1].events[0]
    assert isinstance(start, Start)
    assert start.request_id == "r-3"
    usages = [event.usage for event in late[0].events if isinstance(event, Guidance)]
    assert usages[0] is not None
    assert usages[1:] == [None, None]


async def test_only_the_last_who_leaves_stops_the_engine() -> None:
    teacher = ScriptedTeacher("a", "b", "c")
    teacher.gate.clear()
    async with cloud(teacher) as client:
        first = read(client)
        await first.begun.wait()
        second, third = read(client), read(client)
        await asyncio.gather(second.begun.wait(), third.begun.wait())
        await first.leave()
        await second.leave()
        teacher.gate.set()
        await third.task
        assert third.text == ["a", "b", "c"]
        assert third.done.reused == "coalesced"

        teacher.gate.clear()
        await teacher.stopped.get()
        alone, other = read(client), read(client)
        await asyncio.gather(alone.begun.wait(), other.begun.wait())
        await alone.leave()
        await other.leave()
        assert await teacher.stopped.get() == teacher.request_ids[-1]
        assert await metric(client, "gkt_cloud_requests_running") == 0


async def test_what_fails_fails_for_all_and_is_not_kept() -> None:
    teacher = ScriptedTeacher("a", "b", dies_after=1)
    teacher.gate.clear()
    async with cloud(teacher, coalesce="cache") as client:
        first = read(client)
        await first.begun.wait()
        second = read(client)
        await second.begun.wait()
        teacher.gate.set()
        await asyncio.gather(first.task, second.task)
        assert isinstance(first.events[-1], Failure)
        assert isinstance(second.events[-1], Failure)
        teacher.dies_after = None
        again = read(client)
        await again.task
        assert again.done.reused is None


async def test_a_request_that_waits_for_a_place_is_joined_too() -> None:
    teacher = ScriptedTeacher("a", "b")
    teacher.gate.clear()
    async with cloud(teacher, max_running=1, max_queue=1) as client:
        running = read(client, body("another"))
        await running.begun.wait()
        waiting = [read(client) for _ in range(3)]
        while await metric(client, "gkt_cloud_requests_waiting") != 1:
            await asyncio.sleep(0.01)
        teacher.gate.set()
        await asyncio.gather(running.task, *[reader.task for reader in waiting])
    assert len(teacher.request_ids) == 2
    assert sorted(str(reader.done.reused) for reader in waiting) == ["None", "coalesced", "coalesced"]


async def test_what_is_kept_answers_without_the_engine() -> None:
    teacher = ScriptedTeacher("a", "b", "c")
    teacher.doubted = "!"
    review = body(draft="1!", acceptance_threshold=0.1, logprobs=True)
    async with cloud(teacher, coalesce="cache", **PRICES) as client:
        for request, path in [(body(logprobs=True), "guidance"), (review, "review")]:
            first = read(client, request, path)
            await first.task
            again = read(client, request, path)
            await again.task
            assert again.events[1:-1] == first.events[1:-1]
            assert (first.done.reused, again.done.reused) == (None, "cached")
            assert again.done.finish_reason == first.done.finish_reason
            assert again.done.cost_usd == 0
        assert any(isinstance(event, Verdict) for event in again.events)
        assert len(teacher.prompts) == 2
        assert await metric(client, 'gkt_cloud_reused_requests_total{kind="cached"}') == 2


@pytest.mark.parametrize(
    "other",
    [
        body("!"), body(max_guidance_tokens=9), body(answer="x"), body(stop_at_word_boundary=True), body(stop_at_line_end=True),
        body(logprobs=True), body(top_k=3), body(json_schema={"const": 1}),
    ],
)  # fmt: skip
async def test_another_question_is_another(other: dict[str, Any]) -> None:
    teacher = ScriptedTeacher("a", "b")
    async with cloud(teacher, coalesce="cache") as client:
        for request in (body(), other):
            reader = read(client, request)
            await reader.task
            assert reader.done.reused is None
    assert len(teacher.request_ids) == 2


async def test_what_chance_decides_is_asked_each_time_and_priority_makes_no_difference() -> None:
    teacher = ScriptedTeacher("a")
    async with cloud(teacher, coalesce="cache") as client:
        for _ in range(2):
            await read(client, body(temperature=0.5, seed=1)).task
        assert len(teacher.request_ids) == 2
        await read(client, body()).task
        await read(client, body(priority=5)).task
        assert len(teacher.request_ids) == 3


@pytest.mark.parametrize(("across", "asked"), [(False, 2), (True, 1)])
async def test_no_key_is_told_what_another_asked_unless_the_operator_says_so(across: bool, asked: int) -> None:
    teacher = ScriptedTeacher("a", "b")
    async with cloud(teacher, coalesce="cache", coalesce_across_keys=across) as client:
        await read(client).task
        other = read(client, key="two")
        await other.task
        assert other.done.reused == ("cached" if across else None)
    assert len(teacher.request_ids) == asked
    salts = {hints.cache_salt for hints in teacher.hints}
    assert (salts == {None}) if across else (len(salts) == 2 and None not in salts)


async def test_requests_with_a_salt_share_with_those_of_the_same() -> None:
    teacher = ScriptedTeacher("a", "b")
    async with cloud(teacher, coalesce="cache", coalesce_across_keys=True) as client:
        for salt in ("alice", "bob", "alice"):
            await read(client, body(cache_salt=salt)).task
    assert [hints.cache_salt for hints in teacher.hints] == ["alice", "bob"]


@pytest.mark.parametrize(("price", "nano_usd"), [("free", 0), ("cached", (7 + 2) * 500)])
async def test_rows_of_what_was_told_again(store_url: str, engine: Engine, price: str, nano_usd: int) -> None:
    key = create(engine, "edge", Allowance(daily_nano_usd=10**9))
    teacher = ScriptedTeacher("a", "b")
    settings = {
        "store_url": SecretStr(store_url),
        "coalesce": "cache",
        "reused_response_price": price,
        "keys": (),
        **PRICES,
    }
    async with cloud(teacher, **settings) as client:
        await read(client, key=key).task
        again = read(client, key=key)
        await again.task
        assert await metric(client, "gkt_cloud_cost_usd_total") == pytest.approx(
            (3000 + 2000 + 20_000 + nano_usd) / 1e9
        )
    assert again.done.cost_usd == nano_usd / 1e9
    with engine.begin() as connection:
        own, told = connection.execute(select(ledger).order_by(ledger.c.reused.is_not(None))).mappings().all()
    assert (own["completion_tokens"], own["reused_tokens"], own["reused"]) == (2, 0, None)
    assert (told["prompt_tokens"], told["completion_tokens"], told["reused_tokens"]) == (0, 0, 2)
    assert (told["reused"], told["finish_reason"], told["cost_nano_usd"]) == ("cached", "stop", nano_usd)
    (day,) = usage(engine)
    assert (day.requests, day.completion_tokens, day.reused_requests, day.reused_tokens) == (2, 2, 1, 2)


def response(tokens: int) -> UsageRecord:
    """Return the record of a response with this many tokens."""
    return UsageRecord("r", "one", "guidance", "t", "m", completion_tokens=tokens)


def test_the_cache_is_bounded_and_what_was_used_last_stays() -> None:
    cache = ResponseCache(2 * (ENTRY_TOKENS + 10), ttl_s=60)
    for key in (b"a", b"b"):
        cache.store(key, [], response(10))
    assert cache.lookup(b"a")
    cache.store(b"c", [], response(10))
    assert [key for key in (b"a", b"b", b"c") if cache.lookup(key)] == [b"a", b"c"]
    cache.store(b"d", [], response(1000))
    assert not cache.lookup(b"d"), "larger than all there is"
    assert cache.lookup(b"c")


def test_what_is_kept_expires() -> None:
    now = 100.0
    cache = ResponseCache(1000, ttl_s=10, clock=lambda: now)
    cache.store(b"a", [], response(10))
    now = 109.9
    assert cache.lookup(b"a")
    now = 110.0
    assert not cache.lookup(b"a")
