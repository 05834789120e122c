"""Strikes services and links as a schedule says, and puts everything right again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from evaluation.chaos.clocks import Clocks
from evaluation.chaos.cluster import Member, Town
from evaluation.chaos.faults import FaultKind, Strike
from evaluation.chaos.invariants import Absence
from evaluation.figures import NotMeasured

CONTROL_S = 60.0
"""A machine that is busy with other things."""


@dataclass
class Strikes:
    """What has struck so far. Times are of `time.monotonic`."""

    counts: Counter[FaultKind] = field(default_factory=Counter)
    absences: list[Absence] = field(default_factory=list)
    log: list[tuple[float, str]] = field(default_factory=list)


class Striker:
    """Everything it does it also undoes, when it is cancelled too."""

    def __init__(self, town: Town, clocks: Clocks | None) -> None:
        self._town = town
        self._clocks = clocks
        self._http = httpx.AsyncClient(base_url=f"{town.control_url}/v1/links", trust_env=False, timeout=CONTROL_S)
        self.struck = Strikes()

    async def run(self, lanes: Sequence[Sequence[Strike]], began_s: float) -> None:
        """All lanes, to their end."""
        try:
            async with asyncio.TaskGroup() as group:
                for lane in lanes:
                    group.create_task(self._lane(lane, began_s))
        except ExceptionGroup as failed:
            # A service that did not come back ends the run; what it said last is all there is to tell.
            for error in failed.exceptions:
                if isinstance(error, NotMeasured):
                    raise error from None
            raise

    async def close(self) -> None:
        await self._http.aclose()

    async def _lane(self, lane: Sequence[Strike], began_s: float) -> None:
        for strike in lane:
            await asyncio.sleep(max(0.0, began_s + strike.at_s - time.monotonic()))
            self.struck.counts[strike.kind] += 1
            self.struck.log.append((time.monotonic(), f"{strike.kind} {strike.target} {dict(strike.options)}"))
            async with self._strike(strike):
                await asyncio.sleep(strike.lasts_s)
            self.struck.log.append((time.monotonic(), f"{strike.kind} {strike.target} is over"))

    @asynccontextmanager
    async def _strike(self, strike: Strike) -> AsyncGenerator[None]:
        match strike.kind:
            case FaultKind.LATENCY:
                await self._link("PUT", strike.target, "", dict(strike.options))
                try:
                    yield
                finally:
                    await self._link("PUT", strike.target, "", {})
            case FaultKind.CLOUD_KILLED:
                await asyncio.to_thread(self._town.cloud.kill)
                try:
                    yield
                finally:
                    await asyncio.to_thread(self._restart, self._town.cloud)
            case FaultKind.CLOUD_PAUSED:
                self._town.cloud.pause()
                try:
                    yield
                finally:
                    self._town.cloud.go_on()
            case FaultKind.EDGE_KILLED:
                edge = self._town.edges[strike.target]
                from_s = time.monotonic()
                await asyncio.to_thread(edge.kill)
                try:
                    yield
                finally:
                    await asyncio.to_thread(self._restart, edge)
                    self.struck.absences.append(Absence(strike.target, from_s, time.monotonic()))
            case FaultKind.DISK_FULL:
                member = self._town.member(strike.target)
                member.fill_disk()
                try:
                    yield
                finally:
                    member.empty_disk()
            case FaultKind.CLOCK_JUMP:
                if self._clocks:
                    self._clocks.jump(strike.target, strike.options["jump_s"])
                yield
            case _:
                action = FaultKind.CUT if strike.kind is FaultKind.CUT_AFTER else strike.kind
                await self._link("POST", strike.target, f"/{action}", dict(strike.options))
                try:
                    yield
                finally:
                    await self._link("POST", strike.target, "/resume", {})

    async def _link(self, method: str, link: str, action: str, body: dict[str, object]) -> None:
        (await self._http.request(method, f"/{link}{action}", json=body)).raise_for_status()

    def _restart(self, member: Member) -> None:
        member.start(self._town.start_s)
        member.await_ready(self._town.start_s)
