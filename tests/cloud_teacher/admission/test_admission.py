"""Admission decides exactly, and without a clock, which requests run, wait or are refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from cloud_teacher.accounting.usage import UsageRecord
from cloud_teacher.admission.admission import Admission
from cloud_teacher.admission.fair_queue import FairQueue, Ticket
from cloud_teacher.auth.caller import Allowance, Caller
from shared.errors import BudgetTooLarge, Overloaded, TooManyRequests
from shared.protocol.guidance import Usage


def jain(shares: list[float]) -> float:
    """Return Jain's fairness index (Jain, Chiu, Hawe, 1984): 1 if all have the same, 1/n if one has everything."""
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


async def served(
    outstanding: dict[str, int], *, rounds: int, cost: dict[str, float] | None = None, **weights: float
) -> Counter[str]:
    """Return the tokens that each key was given by a queue of 4 places. Each key always has this many requests open."""
    queue = FairQueue(4, 1000, 60)
    given: Counter[str] = Counter()
    running: asyncio.Queue[Ticket] = asyncio.Queue()

    async def keep_asking(key: str) -> None:
        while True:
            ticket = Ticket(key, (cost or {}).get(key, 1.0), weights.get(key, 1.0))
            await queue.enter(ticket)
            running.put_nowait(ticket)
            await done[ticket].wait()

    class Events(dict[Ticket, asyncio.Event]):
        def __missing__(self, ticket: Ticket) -> asyncio.Event:
            self[ticket] = asyncio.Event()
            return self[ticket]

    done = Events()
    edges = [asyncio.create_task(keep_asking(key)) for key, count in outstanding.items() for _ in range(count)]
    for _ in range(rounds):
        ticket = await running.get()
        given[ticket.key] += int(ticket.cost)
        queue.leave(ticket, ticket.cost)
        done.pop(ticket, asyncio.Event()).set()
    for edge in edges:
        edge.cancel()
    await asyncio.gather(*edges, return_exceptions=True)
    return given


async def test_a_key_that_floods_delays_itself() -> None:
    keys = {f"edge-{at}": 2 for at in range(9)}
    given = await served({"flood": 20, **keys}, rounds=1000)
    assert jain([given[key] for key in ("flood", *keys)]) >= 0.95
    assert given["flood"] <= 1.1 * 1000 / 10


async def test_large_requests_are_no_way_to_a_larger_share() -> None:
    given = await served({"large": 8, "small": 8}, rounds=2000, cost={"large": 10.0})
    assert jain([given["large"], given["small"]]) >= 0.99


async def test_shares_are_as_weights() -> None:
    given = await served({"heavy": 10, "light": 10}, rounds=900, heavy=2.0)
    assert given["heavy"] / given["light"] == pytest.approx(2, rel=0.05)


async def test_who_comes_back_has_saved_nothing_up() -> None:
    queue = FairQueue(1, 100, 60)
    first = Ticket("busy", 1)
    await queue.enter(first)
    for _ in range(50):
        queue.leave(first, 1)
        await queue.enter(first := Ticket("busy", 1))
    order: list[str] = []

    async def ask(key: str) -> None:
        await queue.enter(ticket := Ticket(key, 1))
        order.append(key)
        queue.leave(ticket, 1)

    asks = [asyncio.create_task(ask(key)) for key in ["busy"] * 3 + ["back"] * 3]
    await asyncio.sleep(0)
    queue.leave(first, 1)
    await asyncio.gather(*asks)
    assert sorted(order[:2]) == ["back", "busy"]
    assert sorted(order[2:4]) == ["back", "busy"]


async def test_a_lower_priority_number_goes_first_whoever_asks() -> None:
    queue = FairQueue(1, 100, 60)
    await queue.enter(first := Ticket("a", 1))
    order: list[int] = []

    async def ask(priority: int) -> None:
        await queue.enter(ticket := Ticket("a", 1, priority=priority))
        order.append(priority)
        queue.leave(ticket, 1)

    asks = [asyncio.create_task(ask(priority)) for priority in (5, 0, -3, 5, 0)]
    await asyncio.sleep(0)
    queue.leave(first, 1)
    await asyncio.gather(*asks)
    assert order == [-3, 0, 0, 5, 5]


async def test_a_full_queue_drops_the_last_of_who_has_most_in_it() -> None:
    queue = FairQueue(1, 3, 60)
    await queue.enter(first := Ticket("flood", 1))
    flood = [asyncio.create_task(queue.enter(Ticket("flood", 1))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await queue.enter(Ticket("flood", 1))
    other = asyncio.create_task(queue.enter(Ticket("other", 1)))
    with pytest.raises(Overloaded):
        await flood[-1]
    with pytest.raises(Overloaded):
        await queue.enter(Ticket("third", 1, priority=1))  # a request of lower priority replaces no other
    urgent = asyncio.create_task(queue.enter(Ticket("flood", 1, priority=-1)))
    with pytest.raises(Overloaded):
        await flood[1]
    assert (queue.running, queue.waiting) == (1, 3)
    queue.leave(first, 1)
    await urgent
    for task in (flood[0], other):
        task.cancel()
    await asyncio.gather(flood[0], other, return_exceptions=True)
    assert (queue.running, queue.waiting) == (1, 0)


async def test_who_waits_too_long_is_told() -> None:
    queue = FairQueue(1, 3, 0.01)
    await queue.enter(Ticket("a", 1))
    with pytest.raises(Overloaded, match="no slot"):
        await queue.enter(Ticket("b", 1))
    assert queue.waiting == 0


async def test_a_place_given_to_who_leaves_in_that_moment_goes_to_the_next() -> None:
    queue = FairQueue(1, 3, 60)
    await queue.enter(first := Ticket("a", 1))
    leaving = asyncio.create_task(queue.enter(Ticket("b", 1)))
    staying = asyncio.create_task(queue.enter(Ticket("c", 1)))
    await asyncio.sleep(0)
    queue.leave(first, 1)
    leaving.cancel()
    await staying
    assert (queue.running, queue.waiting) == (1, 0)


async def test_keys_without_number_are_forgotten_once_they_have_had_their_turn() -> None:
    queue = FairQueue(2000, 10, 60)
    tickets = [Ticket(f"edge-{at}", 1) for at in range(1500)]
    for ticket in tickets:
        await queue.enter(ticket)
    for ticket in tickets:
        queue.leave(ticket, 0)
    assert queue.running == 0
    assert len(queue._times) <= 1001


@asynccontextmanager
async def running(admission: Admission, caller: Caller, *, most: int, took: int = 0) -> AsyncGenerator[None]:
    """Run a request that may use this many tokens, and uses `took`."""
    record = UsageRecord("r", caller.name, "guidance", "t", "m")
    record.set_teacher("m", None, Usage(prompt_tokens=most, completion_tokens=0))
    with admission.request(caller):
        async with admission.slot(caller, record, priority=0, max_nano_usd=0):
            yield
            record.prompt_tokens = took


def key(name: str = "a", **allowance: Any) -> Caller:
    return Caller(name, allowance=Allowance(**allowance))


async def test_requests_at_once_and_a_minute() -> None:
    admission = Admission(10)
    two = key(max_running=2)
    async with running(admission, two, most=1), running(admission, two, most=1):
        with pytest.raises(TooManyRequests, match="the limit is 2") as refused:
            async with running(admission, two, most=1):
                pass
        assert refused.value.retry_after_s
        async with running(admission, key("b", max_running=2), most=1):
            assert admission.running == 3
    rated = key("c", requests_per_minute=3)
    for _ in range(3):
        async with running(admission, rated, most=1):
            pass
    with pytest.raises(TooManyRequests, match="3 requests per minute") as refused:
        async with running(admission, rated, most=1):
            pass
    assert 0 < (refused.value.retry_after_s or 0) <= 60
    assert admission.running == 0


async def test_tokens_a_minute_are_held_for_the_most_and_counted_as_they_were() -> None:
    admission = Admission(10)
    caller = key(tokens_per_minute=100)
    with pytest.raises(BudgetTooLarge):
        async with running(admission, caller, most=101):
            pass
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(admission, caller, most=60, took=5))
        with pytest.raises(TooManyRequests, match="100 tokens per minute"):
            await stack.enter_async_context(running(admission, caller, most=60))
    async with running(admission, caller, most=60, took=60):
        pass
    with pytest.raises(TooManyRequests) as refused:
        async with running(admission, caller, most=60):
            pass
    assert 0 < (refused.value.retry_after_s or 0) <= 60
