"""One run: warm up, look what is held, strike while requests run, stop, see that all comes back, and judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import httpx

from evaluation.chaos.answers import FirstText
from evaluation.chaos.clients import Clients, Outcome
from evaluation.chaos.clocks import Clocks
from evaluation.chaos.cluster import Member, Town
from evaluation.chaos.faults import FaultKind, schedule
from evaluation.chaos.injector import Striker, Strikes
from evaluation.chaos.invariants import Invariant, Judged, Scripted, Violation, guided, judge
from evaluation.chaos.leaks import Bounds, Idle, grown, held
from evaluation.chaos.workload import Ask, asks, nonces, rounds
from evaluation.figures import NotMeasured
from shared.protocol.gkt import Mode

PROBE_EVERY_S = 0.1
WARM_TRIES = 5
"""A machine that is busy with other things may miss a deadline without any fault."""
SETTLE_S = 15.0
"""What is held is looked at again and again for so long, until it has returned."""
SLACK_S = 1.0
"""What the way to the first guidance itself takes, and a machine that is busy."""


@dataclass(frozen=True)
class Plan:
    """What is to be run."""

    seed: int
    requests: int
    per_s: float
    deadline_s: float
    scripted: Scripted
    without: Collection[FaultKind] = ()
    warm_rounds: int = 1

    @property
    def span_s(self) -> float:
        return self.requests / self.per_s


@dataclass(frozen=True)
class Ran:
    """What came of it."""

    plan: Plan
    judged: Sequence[Judged]
    violations: Sequence[Violation]
    strikes: Strikes
    recovered_s: Mapping[str, float | None]
    """Of each edge; None where guided answers did not come back."""
    recovery_limit_s: float
    idle: Mapping[str, tuple[Idle, Idle]]
    """Of each service, before and after."""
    began_s: float
    """Of the load, by `time.monotonic`."""
    load_s: float


async def run(town: Town, plan: Plan, clocks: Clocks | None, say: Callable[[str], None]) -> Ran:
    """Raises NotMeasured where even the warm-up goes wrong."""
    urls = {name: edge.url for name, edge in town.edges.items()}
    clients = Clients(urls, deadline_s=plan.deadline_s)
    striker = Striker(town, clocks)
    try:
        return await _run(town, plan, clients, striker, say)
    finally:
        await striker.close()
        await clients.close()


async def _run(town: Town, plan: Plan, clients: Clients, striker: Striker, say: Callable[[str], None]) -> Ran:
    edges = list(town.edges)
    fresh = nonces(plan.seed + 1_000_003)
    say("warming up")
    await _warm_up(clients, rounds(edges, fresh, times=plan.warm_rounds))
    before = {member.name: await _settled(member, None) for member in town.members}
    drawn = asks(plan.seed, plan.requests, edges, span_s=plan.span_s, slow_edges=_slow(town, plan))
    lanes = schedule(plan.seed, edges, span_s=plan.span_s, without=plan.without)
    began_s = time.monotonic()
    say(f"{len(drawn)} requests in {plan.span_s:.0f} s, under {sum(map(len, lanes))} faults")
    loads = [asyncio.create_task(_later(clients, ask, began_s)) for ask in drawn]
    try:
        await striker.run(lanes, began_s)
        stopped_s = time.monotonic()
        say("the faults are over")
        limit_s = town.pace.breaker_open_s + SLACK_S
        back = await asyncio.gather(
            *(_recovered(clients, edge, fresh, stopped_s, limit_s + plan.deadline_s) for edge in edges)
        )
        clients.leave()
        outcomes = await asyncio.gather(*loads)
    finally:
        for task in loads:
            task.cancel()
    load_s = time.monotonic() - began_s
    say("looking what is still held")
    await _warm_up(clients, rounds(edges, fresh, times=1))
    after = {member.name: await _settled(member, before[member.name]) for member in town.members}
    recovered = dict(zip(edges, back, strict=True))
    judged = _judged(outcomes, striker.struck, plan)
    violations = [violation for one in judged for violation in one.violations]
    violations += _unrecovered(recovered, limit_s)
    violations += [
        Violation(Invariant.IDLE, f"the {name} holds {what}")
        for name, idle in after.items()
        for what in grown(before[name], idle, Bounds())
    ]
    idle = {name: (before[name], after[name]) for name in before}
    return Ran(plan, judged, violations, striker.struck, recovered, limit_s, idle, began_s, load_s)


def _slow(town: Town, plan: Plan) -> list[str]:
    """Edges with a real student."""
    return [name for name in town.edges if name not in plan.scripted.students]


def _judged(outcomes: Sequence[Outcome], struck: Strikes, plan: Plan) -> list[Judged]:
    known = {outcome.ask.mark.nonce for outcome in outcomes}
    return [judge(outcome, known, struck.absences, plan.scripted) for outcome in outcomes]


def _unrecovered(recovered: Mapping[str, float | None], limit_s: float) -> list[Violation]:
    late = {edge: seconds for edge, seconds in recovered.items() if seconds is None or seconds > limit_s}
    return [
        Violation(
            Invariant.RECOVERED,
            f"{edge} gave no guidance within {limit_s:g} s"
            + (", nor later" if seconds is None else f", but after {seconds:.1f} s"),
        )
        for edge, seconds in late.items()
    ]


async def _later(clients: Clients, ask: Ask, began_s: float) -> Outcome:
    await asyncio.sleep(max(0.0, began_s + ask.at_s - time.monotonic()))
    return await clients.ask(ask)


async def _warm_up(clients: Clients, warm: Sequence[Ask]) -> None:
    """One after the other for each edge. Raises NotMeasured where an answer is not whole and guided."""

    async def one_edge(edge: str) -> None:
        for ask in warm:
            if ask.edge != edge:
                continue
            for _ in range(WARM_TRIES):
                outcome = await clients.ask(ask)
                if guided(outcome):
                    break
            else:
                said = outcome.body[-500:].decode(errors="replace")
                raise NotMeasured(f"without any fault {edge} answered {outcome.status} {outcome.broke or ''}: {said}")

    await asyncio.gather(*(one_edge(edge) for edge in {ask.edge for ask in warm}))


async def _recovered(
    clients: Clients, edge: str, fresh: Iterator[str], since_s: float, within_s: float
) -> float | None:
    """Seconds until an edge's client reads guidance again, of an answer that then comes to its end guided.

    How long the student takes for its own part is not counted: that is its queue's and the device's business.
    """
    while time.monotonic() < since_s + within_s:
        [probe] = [ask for ask in rounds([edge], fresh, times=1) if ask.mode is Mode.FIXED and ask.stream]
        first = FirstText()
        outcome = await clients.ask(replace(probe, guidance_tokens=8, max_tokens=12), first)
        if guided(outcome) and first.at_s is not None:
            return first.at_s - since_s
        await asyncio.sleep(PROBE_EVERY_S)
    return None


async def _settled(member: Member, before: Idle | None) -> Idle:
    """What a service holds, once that is no more than before or will not become less."""
    until = time.monotonic() + SETTLE_S
    async with httpx.AsyncClient(base_url=member.url, trust_env=False, timeout=10) as http:
        while True:
            try:
                idle = held(member.pid, (await http.get("/metrics")).raise_for_status().text)
            except httpx.HTTPError as error:
                raise NotMeasured(f"the {member.name} tells no metrics: {type(error).__name__} {error}") from error
            done = not idle.work if before is None else not grown(before, idle, Bounds())
            if done or time.monotonic() > until:
                return idle
            await asyncio.sleep(0.25)
