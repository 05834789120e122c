from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from datetime import date
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select

from cloud_teacher.accounting.ledger import BudgetRequest, LedgerRow
from cloud_teacher.auth.caller import Allowance
from cloud_teacher.store.database import connect
from cloud_teacher.store.keys import create
from cloud_teacher.store.ledger import StoredLedger
from cloud_teacher.store.rows import SUMS, DayUsage, usage, write
from cloud_teacher.store.tables import days, ledger, reservations
from shared.errors import StoreFailed
from tests.postgres import Server

DAY = date(2026, 11, 24)


def row(key: str = "a", day: date = DAY, **changes: Any) -> LedgerRow:
    return LedgerRow(**{
        "id": uuid.uuid4().hex, "request_id": "r", "key": key, "kind": "guidance", "model": "m", "template": "t",
        "day": day, "arrived_ms": 1, "queue_ms": None, "first_token_ms": 2.5, "total_ms": 3.0, "prompt_tokens": 10,
        "cached_tokens": 4, "completion_tokens": 3, "reused_tokens": 0, "finish_reason": "stop", "reused": None,
        "cost_nano_usd": 7, **changes,
    })  # fmt: skip


def ask(
    *, tokens: int, nano_usd: int = 0, daily_tokens: int | None = None, daily_nano_usd: int | None = None
) -> BudgetRequest:
    return BudgetRequest(uuid.uuid4().hex, "a", DAY, tokens, nano_usd, daily_tokens, daily_nano_usd)


@pytest.fixture
async def stored(engine: Engine) -> AsyncGenerator[StoredLedger]:
    stored = StoredLedger(engine)
    yield stored
    await asyncio.to_thread(stored.close)


def count(engine: Engine) -> int:
    with engine.begin() as connection:
        return connection.scalar(select(func.count()).select_from(ledger)) or 0


async def test_days_are_the_sums_of_their_rows(engine: Engine, stored: StoredLedger) -> None:
    other = date(2026, 11, 25)
    rows = [row(), row("b"), row(), row(day=other), row(reused="cached", prompt_tokens=0, cached_tokens=0,
            completion_tokens=0, reused_tokens=3, cost_nano_usd=0)]  # fmt: skip
    await asyncio.gather(*map(stored.record, rows))
    assert usage(engine) == [
        DayUsage("a", DAY, 3, 20, 8, 6, 1, 3, 14),
        DayUsage("b", DAY, 1, 10, 4, 3, 0, 0, 7),
        DayUsage("a", other, 1, 10, 4, 3, 0, 0, 7),
    ]
    assert [day.key for day in usage(engine, since=other)] == ["a"]
    assert [day.day for day in usage(engine, key="a", until=DAY)] == [DAY]


async def test_what_waits_is_committed_together(engine: Engine, stored: StoredLedger) -> None:
    commits: list[object] = []
    event.listen(engine, "commit", commits.append)
    await asyncio.gather(*[stored.record(row()) for _ in range(200)])
    assert count(engine) == 200
    assert len(commits) < 20


async def test_a_row_whose_commit_may_have_been_lost_is_not_written_twice(engine: Engine) -> None:
    first, second = row(), row()
    with engine.begin() as connection:
        write(connection, [(first, None)], again=False)
    with engine.begin() as connection:
        write(connection, [(first, None), (second, None)], again=True)
    assert count(engine) == 2
    assert usage(engine)[0].requests == 2


async def test_a_row_that_cannot_be_written_does_not_take_others_along(engine: Engine, stored: StoredLedger) -> None:
    twice = row()
    results = await asyncio.gather(
        *map(stored.record, [row(), twice, twice, row()]), stored.record(row()), return_exceptions=True
    )
    assert sum(isinstance(result, StoreFailed) for result in results) <= 1, "the second of a pair, if it came alone"
    assert count(engine) == 4
    assert usage(engine)[0].requests == 4


async def test_closing_writes_what_waits(engine: Engine) -> None:
    stored = StoredLedger(engine)
    for _ in range(50):
        stored.record(row())
    await asyncio.to_thread(stored.close)
    assert count(engine) == 50


@pytest.mark.parametrize(("budgets", "which"), [({"daily_tokens": 100}, "tokens"), ({"daily_nano_usd": 1000}, "money")])
async def test_a_budget_is_not_exceeded_by_many_at_once_on_two_replicas(
    store_url: str, budgets: dict[str, int], which: str
) -> None:
    engines = [connect(store_url), connect(store_url)]
    create(engines[0], "a", Allowance())
    replicas = [StoredLedger(engine) for engine in engines]
    asked = [ask(tokens=10, nano_usd=100, **budgets) for _ in range(40)]
    answers = await asyncio.gather(*[replicas[at % 2].reserve(one) for at, one in enumerate(asked)])
    assert answers.count(None) == 10
    assert set(answers) == {None, which}
    # The requests used half of their reservations: exactly the other half can be reserved again.
    held = [one for one, answer in zip(asked, answers, strict=True) if answer is None]
    half: dict[str, Any] = {"prompt_tokens": 4, "completion_tokens": 1, "cost_nano_usd": 50}
    await asyncio.gather(*[replicas[0].record(row(**half), one.id) for one in held])
    more = await asyncio.gather(*[replicas[1].reserve(ask(tokens=10, nano_usd=100, **budgets)) for _ in range(20)])
    assert more.count(None) == 5
    for replica, engine in zip(replicas, engines, strict=True):
        await asyncio.to_thread(replica.close)
        engine.dispose()


async def test_what_came_to_nothing_is_given_back(engine: Engine, stored: StoredLedger) -> None:
    create(engine, "a", Allowance())
    whole = ask(tokens=100, daily_tokens=100)
    assert await stored.reserve(whole) is None
    assert await stored.reserve(ask(tokens=1, daily_tokens=100)) == "tokens"
    stored.release(whole.id)
    assert await stored.reserve(ask(tokens=100, daily_tokens=100)) is None


async def test_what_a_killed_replica_had_set_aside_runs_out(engine: Engine, stored: StoredLedger) -> None:
    create(engine, "a", Allowance())
    assert await stored.reserve(ask(tokens=100, daily_tokens=100)) is None
    with engine.begin() as connection:
        connection.execute(reservations.update().values(expires_ms=1))
    assert await stored.reserve(ask(tokens=100, daily_tokens=100)) is None


@pytest.mark.system
async def test_a_database_that_is_away_is_said_and_one_that_is_back_is_used(postgresql: Server) -> None:
    engine = connect(postgresql.new_database())
    stored = StoredLedger(engine)
    await stored.record(row())
    postgresql.stop()
    with pytest.raises(StoreFailed):
        await stored.record(row())
    postgresql.start()
    await stored.record(row())
    assert count(engine) == 2
    await asyncio.to_thread(stored.close)
    engine.dispose()


async def test_the_sums_of_days_are_all_there_is_to_sum() -> None:
    assert set(SUMS) == {column.name for column in days.columns} - {"key", "day"}
