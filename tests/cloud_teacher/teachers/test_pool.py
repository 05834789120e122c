"""Several teachers over real HTTP: which one gets a request, which one replaces it, and which one is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import create_engine, text

from cloud_teacher.app import create_app
from cloud_teacher.auth.caller import Allowance
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.store.database import connect
from cloud_teacher.store.keys import create
from cloud_teacher.store.rows import usage as rows_usage
from cloud_teacher.teachers.pool import PooledTeacher
from shared.errors import EngineFailed, NotReady, TooManyRequests
from shared.protocol.guidance import Done, Event, Failure, Guidance, Start
from shared.protocol.sse import decode
from tests.cloud_teacher.fakes import ScriptedTeacher
from tests.cloud_teacher.scripted_upstream import PARIS, Upstream, delta, scripted, usage
from tests.running import serving

ASKED = {"messages": [{"role": "user", "content": "Where?"}], "max_guidance_tokens": 10}
OSLO = (delta("Oslo"), delta(finish="stop"), usage(prompt_tokens=8, completion_tokens=2, prompt_tokens_details=None))
NOWHERE = "http://127.0.0.1:9/v1"
"""Address without a listener."""
LOADING = "the teacher is still loading"


@dataclass
class Running:
    client: httpx.AsyncClient
    first: Upstream
    second: Upstream

    async def ask(self, path: str = "/v1/guidance", **changes: Any) -> list[Event]:
        async with self.client.stream("POST", path, json={**ASKED, **changes}) as response:
            assert response.status_code == 200, await response.aread()
            return [event async for event in decode(response)]

    async def said(self, **changes: Any) -> tuple[str, str]:
        """Return the model that answered, and its text."""
        start, *words, done = await self.ask(**changes)
        assert isinstance(start, Start)
        assert isinstance(done, Done)
        return start.model, "".join(word.text for word in words if isinstance(word, Guidance))

    async def metric(self, name: str) -> float:
        lines = (await self.client.get("/metrics")).text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(name)), 0.0)


@asynccontextmanager
async def running(
    folder: Path, *more: dict[str, Any], first: dict[str, Any] | None = None, loaded: bool = True, **settings: Any
) -> AsyncGenerator[Running]:
    """Run a cloud with the teachers `first`, `second` and `more`, all loaded. `first` has changes to the first one's entry."""
    async with AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(scripted(*says)) for says in (PARIS, OSLO)]
        entries = [
            {"name": "first", "api": "chat", "url": one.url, **(first or {})},
            {"name": "second", "api": "chat", "url": two.url, "model": "second-large"},
            *more,
        ]
        file = folder / "teachers.yaml"
        file.write_text(yaml.safe_dump(entries))
        app = create_app(CloudSettings(**{"teachers_file": file, "coalesce": "off", "keys": ["k"], **settings}))
        url = await stack.enter_async_context(serving(app))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer k"}))
        while loaded and LOADING in (await client.get("/ready")).text:
            await asyncio.sleep(0.01)
        yield Running(client, one, two)


async def test_a_request_names_its_teacher_or_gets_the_first(tmp_path: Path) -> None:
    async with running(tmp_path) as cloud:
        assert await cloud.said() == ("first", "Paris is it")
        assert await cloud.said(model="second") == ("second", "Oslo")
        assert cloud.second.asked[0]["model"] == "second-large"
        unknown = await cloud.client.post("/v1/guidance", json={**ASKED, "model": "third"})
        assert unknown.status_code == 404
        assert unknown.json()["error"]["code"] == "model_not_found"
        assert unknown.json()["error"]["param"] == "model"
        listed = (await cloud.client.get("/v1/models")).json()
        assert [card["id"] for card in listed["data"]] == ["first", "second"]


@pytest.mark.parametrize("status", [401, 429, 500, 502, 503])
async def test_the_next_is_asked_where_one_refuses_and_it_alone_is_named_counted_and_paid(
    status: int, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    own = {"input_usd_per_million": 100, "output_usd_per_million": 100, "cool_down_s": 0}
    prices: dict[str, Any] = {"input_usd_per_million": 1, "output_usd_per_million": 10}
    async with running(tmp_path, first=own, store_url=SecretStr(store), **prices) as cloud:
        cloud.first.status, cloud.first.headers = status, {"retry-after": "0"}
        start, *_, done = await cloud.ask()
        assert isinstance(start, Start)
        assert start.model == "second"
        assert isinstance(done, Done)
        assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (8, 2)
        assert done.cost_usd == pytest.approx((8 * 1 + 2 * 10) / 1e6)
        assert await cloud.metric('gkt_cloud_teacher_requests_total{outcome="stop",teacher="second"}') == 1
        assert await cloud.metric('gkt_cloud_teacher_tokens_total{kind="completion",teacher="second"}') == 2
        assert await cloud.metric("gkt_cloud_teacher_failovers_total{code=") == 1
        # The first teacher's own prices count when it is healthy again.
        cloud.first.status = 200
        *_, paid = await cloud.ask()
        assert isinstance(paid, Done)
        assert paid.cost_usd == pytest.approx((31 + 7) * 100 / 1e6)
    with create_engine(store).connect() as connection:
        rows = connection.execute(text("SELECT model, prompt_tokens, completion_tokens, estimated FROM ledger")).all()
    assert [tuple(row) for row in rows] == [("second", 8, 2, 0), ("first", 31, 7, 0)]


async def test_after_its_first_word_no_other_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path) as cloud:
        cloud.first.says, cloud.first.ends = PARIS[:2], False
        start, word, failure = await cloud.ask()
        assert isinstance(start, Start)
        assert start.model == "first"
        assert isinstance(word, Guidance)
        assert isinstance(failure, Failure)
        assert failure.code == "engine_failed"
        assert cloud.second.asked == []
        # Thoughts are no words yet.
        cloud.first.says = [delta(reasoning_content="Hm.")]
        assert await cloud.said() == ("second", "Oslo")


async def test_one_that_is_away_does_not_slow_the_others_down(tmp_path: Path) -> None:
    async with running(tmp_path, first={"url": NOWHERE, "cool_down_s": 60}) as cloud:
        assert [await cloud.said() for _ in range(3)] == [("second", "Oslo")] * 3
        assert await cloud.metric('gkt_cloud_teacher_up{teacher="first"}') == 0
        assert await cloud.metric('gkt_cloud_teacher_up{teacher="second"}') == 1
        ready = (await cloud.client.get("/ready")).json()
        assert (ready["status"], ready["model"]) == ("ok", "second")
        assert ready["detail"].startswith("first: the upstream cannot be reached")
        # If the other teacher is unavailable too, the refusal comes at once, with Retry-After.
        cloud.second.status, cloud.second.headers = 429, {"retry-after": "30"}
        refused = [await cloud.client.post("/v1/guidance", json=ASKED) for _ in range(2)]
        # The first request has begun its stream; afterwards all teachers cool down.
        assert refused[0].status_code == 200
        assert "too_many_requests" in refused[0].text
        assert refused[1].status_code == 503
        assert refused[1].json()["error"]["code"] == "not_ready"
        assert 0 < float(refused[1].headers["retry-after"]) <= 60
        assert len(cloud.second.asked) == 4
        assert (await cloud.client.get("/ready")).status_code == 503


async def test_one_that_says_nothing_in_time_has_failed(tmp_path: Path) -> None:
    async with running(tmp_path, first={"first_token_s": 0.2}) as cloud:
        cloud.first.waits_before = 0
        assert await cloud.said() == ("second", "Oslo")
        await cloud.first.left.wait()
        # Once it has begun it may take its time.
        assert await cloud.said() == ("second", "Oslo")
        assert len(cloud.first.asked) == 1, "it rests"


async def test_who_stands_in_is_as_the_file_has_it(tmp_path: Path) -> None:
    third = {"name": "third", "api": "chat", "url": NOWHERE, "fallbacks": []}
    async with running(tmp_path, third, first={"fallbacks": ["third", "second"]}) as cloud:
        cloud.first.status = 500
        assert await cloud.said() == ("second", "Oslo")
        lone = await cloud.client.post("/v1/guidance", json={**ASKED, "model": "third"})
        assert (lone.status_code, lone.json()["error"]["code"]) == (503, "not_ready")
        assert await cloud.said(model="second") == ("second", "Oslo")


async def test_what_one_cannot_do_another_is_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, first={"continuation": "none"}) as cloud:
        refused = await cloud.client.post("/v1/guidance", json={**ASKED, "answer": "It is"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "continuation_unsupported")
        assert cloud.first.asked == cloud.second.asked == []
    other = {"name": "other", "api": "chat", "url": "", "continuation": "trailing"}
    async with scripted(*OSLO) as third, running(tmp_path, {**other, "url": third.url}) as cloud:
        assert await cloud.said(answer="It is") == ("other", "Oslo")
        assert cloud.first.asked == cloud.second.asked == []


async def test_requests_that_are_alike_hear_who_wrote_it(tmp_path: Path) -> None:
    async with running(tmp_path, coalesce="cache") as cloud:
        cloud.first.status = 500
        assert [await cloud.said() for _ in range(2)] == [("second", "Oslo")] * 2
        assert await cloud.said(model="second") == ("second", "Oslo")
        assert len(cloud.second.asked) == 2, "who names a teacher asks for another thing"


async def test_it_serves_while_one_is_loaded_and_after_one_has_died(tmp_path: Path) -> None:
    # A model folder that is none: this engine cannot start.
    here = {"name": "here", "api": "vllm", "model": str(tmp_path)}
    async with running(tmp_path, here, loaded=False) as cloud:
        assert await cloud.said() in {("first", "Paris is it"), ("second", "Oslo")}
        while LOADING in (ready := (await cloud.client.get("/ready")).json())["detail"]:
            await asyncio.sleep(0.01)
        assert ready["status"] == "ok"
        assert "has no config.json" in ready["detail"]
        dead = await cloud.client.post("/v1/guidance", json={**ASKED, "model": "here"})
        assert (dead.status_code, dead.json()["error"]["code"]) == (500, "engine_failed")


async def test_who_leaves_while_one_is_silent_has_no_other_asked(tmp_path: Path) -> None:
    async with running(tmp_path) as cloud:
        cloud.first.waits_before = 0
        asking = asyncio.create_task(cloud.ask())
        while not cloud.first.asked:
            await asyncio.sleep(0.01)
        asking.cancel()
        await cloud.first.left.wait()
        cloud.first.waits_before = None
        assert await cloud.said() == ("first", "Paris is it")
        assert cloud.second.asked == []


async def test_what_was_set_aside_for_one_that_failed_comes_free(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    async with running(tmp_path, store_url=SecretStr(store), first={"cool_down_s": 0}) as cloud:
        engine = connect(store)
        # Each of the two can come to 104 tokens: as many bytes, a template's around them, and the guidance.
        key = create(engine, "edge", Allowance(daily_tokens=120))
        cloud.client.headers["authorization"] = f"Bearer {key}"
        cloud.first.status = 500
        while (await cloud.client.get("/v1/models")).status_code == 401:  # keys are read each second
            await asyncio.sleep(0.05)
        assert await cloud.said() == ("second", "Oslo")
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM reservations")).scalar() == 0
        (day,) = rows_usage(engine)
        assert (day.requests, day.prompt_tokens, day.completion_tokens) == (1, 8, 2)
        engine.dispose()


def test_after_its_rest_one_request_tries_it_and_the_others_wait_for_that() -> None:
    now = 0.0
    entry = TeacherEntry(name="a", url=NOWHERE, cool_down_s=5)
    pooled = PooledTeacher(entry, cools_down=True, teacher=ScriptedTeacher("x"), clock=lambda: now)
    pooled.mark_failed(EngineFailed("once"))
    pooled.acquire()
    pooled.mark_failed(NotReady("away", retry_after_s=2))
    with pytest.raises(NotReady) as raised:
        pooled.acquire()
    assert raised.value.retry_after_s == 5
    assert not pooled.is_up()
    now = 5.0
    assert pooled.is_up()
    pooled.acquire()
    with pytest.raises(NotReady):
        pooled.acquire()
    pooled.mark_healthy()
    pooled.acquire()
    pooled.mark_failed(TooManyRequests("enough", retry_after_s=1000))
    now = 64.0
    with pytest.raises(NotReady):
        pooled.acquire()
    now = 66.0
    pooled.acquire()
