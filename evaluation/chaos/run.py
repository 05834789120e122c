"""One run: warm up, read resource usage, inject faults under load, check recovery and leaks, and judge every response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

import httpx

from evaluation.chaos.answers import first_text
from evaluation.chaos.clients import Clients, Response
from evaluation.chaos.clocks import Clocks
from evaluation.chaos.cluster import BREAKER_OPEN_S, Cluster
from evaluation.chaos.faults import ChaosFault, schedule
from evaluation.chaos.injector import InjectedFaults, inject
from evaluation.chaos.invariants import Invariant, JudgedRequest, ScriptedModels, Violation, is_guided, judge
from evaluation.chaos.leaks import ResourceUsage, growth, read_usage
from evaluation.chaos.workload import ClientRequest, nonces, warm_up_requests, workload
from evaluation.figures import NotMeasured
from evaluation.servers.processes import ServerProcess
from shared.protocol.gkt import Mode, Source
from shared.protocol.sse import TimedBytes

PROBE_INTERVAL_S = 0.1
WARM_UP_TRIES = 5
"""Tries of a warm-up request: a busy machine may miss a deadline without any fault."""
SETTLE_S = 15.0
"""Time that a service has to release its resources."""
SLACK_S = 1.0
"""Time that the first guidance takes after the breaker closes, on a busy machine."""


@dataclass(frozen=True)
class RunConfig:
    seed: int
    requests: int
    per_s: float
    deadline_s: float
    scripted: ScriptedModels
    without: Collection[ChaosFault] = ()

    @property
    def span_s(self) -> float:
        return self.requests / self.per_s


@dataclass(frozen=True)
class RunResult:
    config: RunConfig
    judged: Sequence[JudgedRequest]
    violations: Sequence[Violation]
    injected: InjectedFaults
    recovered_s: Mapping[str, float | None]
    """Time until guided answers were back, for each edge; None if they did not come back."""
    recovery_limit_s: float
    usage: Mapping[str, tuple[ResourceUsage, ResourceUsage]]
    """Resource usage of each service, before and after."""
    began_s: float
    """Start of the load, by `time.monotonic`."""
    load_s: float


async def run(cluster: Cluster, config: RunConfig, clocks: Clocks | None, progress: Callable[[str], None]) -> RunResult:
    """Raise NotMeasured if the warm-up fails."""
    urls = {name: edge.url for name, edge in cluster.edges.items()}
    async with aclosing(Clients(urls, deadline_s=config.deadline_s)) as clients:
        return await _run(cluster, config, clients, clocks, progress)


async def _run(
    cluster: Cluster, config: RunConfig, clients: Clients, clocks: Clocks | None, progress: Callable[[str], None]
) -> RunResult:
    edges = list(cluster.edges)
    slow_edges = [edge for edge in edges if edge not in config.scripted.edges]
    fresh = nonces(config.seed + 1_000_003)
    progress("warming up")
    await _warm_up(clients, warm_up_requests(edges, fresh))
    before = {name: await _settled(node, None) for name, node in cluster.nodes.items()}
    requests = workload(config.seed, config.requests, edges, span_s=config.span_s, slow_edges=slow_edges)
    faults = schedule(config.seed, edges, span_s=config.span_s, without=config.without)
    began_s = time.monotonic()
    limit_s = BREAKER_OPEN_S + SLACK_S
    progress(f"{len(requests)} requests in {config.span_s:.0f} s, under {sum(map(len, faults))} faults")
    load = [asyncio.create_task(_send_at(clients, request, began_s)) for request in requests]
    try:
        injected = await inject(cluster, clocks, faults, began_s)
        stopped_s = time.monotonic()
        progress("the faults are over")
        probes = (_recovered(clients, edge, fresh, stopped_s, limit_s + config.deadline_s) for edge in edges)
        recovered = dict(zip(edges, await asyncio.gather(*probes), strict=True))
        clients.disconnect_idle()
        responses = await asyncio.gather(*load)
    finally:
        for task in load:
            task.cancel()
    load_s = time.monotonic() - began_s
    progress("checking for leaks")
    await _warm_up(clients, warm_up_requests(edges, fresh))
    usage = {name: (before[name], await _settled(node, before[name])) for name, node in cluster.nodes.items()}
    known = {request.mark.nonce for request in requests}
    judged = [judge(response, known, injected.downtimes, config.scripted) for response in responses]
    violations = [
        *(violation for one in judged for violation in one.violations),
        *_not_recovered(recovered, limit_s),
        *(
            Violation(Invariant.IDLE, f"the {name} has {what}")
            for name, pair in usage.items()
            for what in growth(*pair)
        ),
    ]
    return RunResult(config, judged, violations, injected, recovered, limit_s, usage, began_s, load_s)


def _not_recovered(recovered: Mapping[str, float | None], limit_s: float) -> Iterator[Violation]:
    for edge, seconds in recovered.items():
        if seconds is None or seconds > limit_s:
            later = "nor later" if seconds is None else f"but after {seconds:.1f} s"
            yield Violation(Invariant.RECOVERED, f"{edge} had no guidance within {limit_s:g} s, {later}")


async def _send_at(clients: Clients, request: ClientRequest, began_s: float) -> Response:
    await asyncio.sleep(max(0.0, began_s + request.at_s - time.monotonic()))
    return await clients.send(request)


async def _warm_up(clients: Clients, requests: Sequence[ClientRequest]) -> None:
    """Send the requests of each edge one after the other. Raise NotMeasured if an answer is not complete and guided."""

    async def warm_up_edge(edge: str) -> None:
        for request in requests:
            if request.edge != edge:
                continue
            for _ in range(WARM_UP_TRIES):
                response = await clients.send(request)
                if is_guided(response):
                    break
            else:
                end = response.body[-500:].decode(errors="replace")
                status = f"{response.status} {response.connection_error or ''}"
                raise NotMeasured(f"without any fault {edge} answered {status}: {end}")

    await asyncio.gather(*(warm_up_edge(edge) for edge in {request.edge for request in requests}))


async def _recovered(
    clients: Clients, edge: str, fresh: Iterator[str], since_s: float, within_s: float
) -> float | None:
    """Return the seconds until a client reads guidance again, in an answer that ends guided.

    The time that the student takes afterwards does not count, because it depends on the queue and the device.
    """
    while time.monotonic() < since_s + within_s:
        streamed = (request for request in warm_up_requests([edge], fresh) if request.stream)
        probe = next(request for request in streamed if request.mode is Mode.FIXED)
        response = await clients.send(replace(probe, guidance_tokens=8, max_tokens=12), _no_student_first)
        if is_guided(response) and (first := first_text(response.reads)):
            return first[0] - since_s
        await asyncio.sleep(PROBE_INTERVAL_S)
    return None


def _no_student_first(reads: Sequence[TimedBytes]) -> bool:
    first = first_text(reads)
    return first is None or first[1] is not Source.STUDENT


async def _settled(node: ServerProcess, before: ResourceUsage | None) -> ResourceUsage:
    """Return the resource usage of a service when it has returned to what it was, or does not return in time."""
    until = time.monotonic() + SETTLE_S
    async with httpx.AsyncClient(base_url=node.url, trust_env=False, timeout=10) as http:
        while True:
            try:
                usage = read_usage(node.pid, (await http.get("/metrics")).raise_for_status().text)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__} {error}"
                raise NotMeasured(f"cannot read the metrics of the {node.name}: {problem}") from error
            settled = not usage.work if before is None else not growth(before, usage)
            if settled or time.monotonic() > until:
                return usage
            await asyncio.sleep(0.25)
