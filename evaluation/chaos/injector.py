"""Injects faults into services and links by a schedule, and ends each of them."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from evaluation.chaos.clocks import Clocks
from evaluation.chaos.cluster import Cluster
from evaluation.chaos.faults import ChaosFault, ScheduledFault
from evaluation.chaos.invariants import Downtime
from evaluation.figures import NotMeasured
from shared.child_process import ProcessFailed

CONTROL_TIMEOUT_S = 60.0
"""Timeout of the link's control API, long because the machine may be busy."""


@dataclass
class InjectedFaults:
    """The faults so far. Times are of `time.monotonic`."""

    counts: Counter[ChaosFault] = field(default_factory=Counter)
    downtimes: list[Downtime] = field(default_factory=list)
    log: list[tuple[float, str]] = field(default_factory=list)


async def inject(
    cluster: Cluster, clocks: Clocks | None, sequences: Sequence[Sequence[ScheduledFault]], began_s: float
) -> InjectedFaults:
    """Run all sequences to their end. Every fault that has begun also ends if this is cancelled."""
    async with httpx.AsyncClient(trust_env=False, timeout=CONTROL_TIMEOUT_S) as http:
        injector = _FaultInjector(cluster, clocks, http)
        try:
            async with asyncio.TaskGroup() as group:
                for sequence in sequences:
                    group.create_task(injector.run_sequence(sequence, began_s))
        except ExceptionGroup as failed:
            # A service that does not start again ends the run; its own error is all that is known.
            for error in failed.exceptions:
                if isinstance(error, NotMeasured | ProcessFailed):
                    raise error from None
            raise
    return injector.injected


class _FaultInjector:
    def __init__(self, cluster: Cluster, clocks: Clocks | None, http: httpx.AsyncClient) -> None:
        self._cluster = cluster
        self._clocks = clocks
        self._http = http
        self.injected = InjectedFaults()

    async def run_sequence(self, sequence: Sequence[ScheduledFault], began_s: float) -> None:
        for fault in sequence:
            await asyncio.sleep(max(0.0, began_s + fault.at_s - time.monotonic()))
            self.injected.counts[fault.kind] += 1
            self.injected.log.append((time.monotonic(), f"{fault.kind} {fault.target} {dict(fault.options)}"))
            async with self._injected(fault):
                await asyncio.sleep(fault.lasts_s)
            self.injected.log.append((time.monotonic(), f"{fault.kind} {fault.target} is over"))

    @asynccontextmanager
    async def _injected(self, fault: ScheduledFault) -> AsyncGenerator[None]:
        node = self._cluster.nodes[fault.target]
        began_s = time.monotonic()
        match fault.kind:
            case ChaosFault.LATENCY:
                await self._link("PUT", fault.target, fault.options)
            case ChaosFault.CLOUD_KILLED | ChaosFault.EDGE_KILLED:
                await asyncio.to_thread(node.kill)
            case ChaosFault.CLOUD_PAUSED:
                node.signal(signal.SIGSTOP)
            case ChaosFault.DISK_FULL:
                node.limit_file_size(0)
            case ChaosFault.CLOCK_JUMP:
                if self._clocks:
                    self._clocks.jump(fault.target, fault.options["jump_s"])
            case _:
                action = ChaosFault.CUT if fault.kind is ChaosFault.CUT_AFTER else fault.kind
                await self._link("POST", f"{fault.target}/{action}", fault.options)
        try:
            yield
        finally:
            match fault.kind:
                case ChaosFault.LATENCY:
                    await self._link("PUT", fault.target, {})
                case ChaosFault.CLOUD_KILLED | ChaosFault.EDGE_KILLED:
                    await asyncio.to_thread(self._cluster.restart, node)
                    self.injected.downtimes.append(Downtime(fault.target, began_s, time.monotonic()))
                case ChaosFault.CLOUD_PAUSED:
                    node.signal(signal.SIGCONT)
                case ChaosFault.DISK_FULL:
                    node.limit_file_size(resource.RLIM_INFINITY)
                case ChaosFault.CLOCK_JUMP:
                    pass  # the next jump sets another time
                case _:
                    await self._link("POST", f"{fault.target}/resume", {})

    async def _link(self, method: str, path: str, body: Mapping[str, object]) -> None:
        url = f"{self._cluster.control_url}/v1/links/{path}"
        (await self._http.request(method, url, json=dict(body))).raise_for_status()
