"""One cloud and hundreds of edges. The teacher has no model and writes a token every 50 ms, which leaves only the service's part.

The delay that a cloud adds to a token is the time between two tokens at the client, minus the teacher's time.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import pairwise
from urllib.parse import urlsplit

import h11

from evaluation.bench.ab_rounds import Progress, Rounds, complete
from evaluation.figures import Figure, Measurement, NotMeasured, median, quantile
from evaluation.loadgen.apis import GUIDANCE, Server, StreamRequest
from evaluation.loadgen.generator import http_request, run_streams
from evaluation.servers.machine import cpu_seconds, reset_peak, resident_bytes
from evaluation.servers.processes import gkt_output
from evaluation.servers.services import listening
from shared.echo_text import NONCE_LETTERS, Mark

EDGES = 200
TOKENS = 100
TOKEN_MS = 50.0
MANY_EDGES = 1000
MANY_S = 60.0
HOT_REQUESTS, HOT_STREAMS, HOT_TOKENS, HOT_ROUNDS = 320, 16, 10, 3
MB = 1 << 20
WAIT_S = 1.0
"""Pause of an edge after a refusal without Retry-After."""
WHOLE, LOST, REFUSED, NO_RETRY_AFTER = "whole", "lost", "refused", "refused without Retry-After"


@contextmanager
def echo_cloud(*, start_s: float, key: str | None = None, **settings: str) -> Iterator[tuple[Server, int]]:
    """Run a cloud without a model. Yield it and its process id. `key` is one that its store has."""
    own_key = secrets.token_urlsafe(16)
    settings = {"MODEL": "echo", "KEYS": own_key, **settings}
    with listening("cloud_teacher.echo", settings, start_s=start_s) as process:
        process.await_ready(start_s)
        yield Server("cloud", process.url, api=GUIDANCE, key=key or own_key), process.pid


def new_requests(count: int, tokens: int) -> list[StreamRequest]:
    """Return requests whose answers all differ."""
    nonces = ("".join(secrets.choice(string.ascii_lowercase) for _ in range(NONCE_LETTERS)) for _ in range(count))
    return [StreamRequest(f"Say it. {Mark(nonce, 2 * tokens)}", tokens) for nonce in nonces]


def measure_fleet(progress: Progress, *, start_s: float, edges: int = EDGES, tokens: int = TOKENS) -> Measurement:
    """Run a stream of every edge at once. Measure lost streams, the delay added to a token, and the memory of an edge."""
    name = f"fleet{edges}"
    with echo_cloud(start_s=start_s, MAX_RUNNING=str(edges), TOKEN_MS=str(TOKEN_MS)) as (cloud, pid):
        progress(f"{name}: warming up")
        run_streams(cloud, new_requests(edges, 2))
        idle_mb = resident_bytes(pid) / MB
        reset_peak(pid)
        progress(f"{name}: {edges} streams of {tokens} tokens")
        streams = run_streams(cloud, new_requests(edges, tokens))
        peak_mb = resident_bytes(pid, peak=True) / MB
    lost = sum(stream.finish != "length" or stream.completion_tokens != tokens for stream in streams)
    added_ms = [1000 * (later - earlier) - TOKEN_MS for stream in streams for earlier, later in pairwise(stream.times)]
    if min(stream.end_s for stream in streams) <= max(stream.first_s for stream in streams):
        raise NotMeasured(f"the {edges} streams did not all run at once")
    how = f"{edges} edges at once, {tokens} tokens each, one every {TOKEN_MS:g} ms"
    delay_how = f"99th percentile of the time between two tokens, minus the teacher's: {how}"
    memory_how = f"peak resident memory ({peak_mb:.0f} MB) minus idle ({idle_mb:.0f} MB), for each edge: {how}"
    return Measurement(
        [
            Figure(f"{name}_lost", lost, f"incomplete streams: {how}", at_most=0),
            Figure(f"{name}_p99_added_ms", quantile(added_ms, 0.99), delay_how, at_most=50),
            Figure(f"{name}_mb_per_edge", max(0.0, (peak_mb - idle_mb) / edges), memory_how, at_most=1),
        ],
        {f"{name}_median_added_ms": median(added_ms)},
    )


def measure_many(
    progress: Progress, *, start_s: float, edges: int = MANY_EDGES, seconds: float = MANY_S
) -> Measurement:
    """Run more edges than the cloud has room for: admitted streams must be complete, the others refused with Retry-After."""
    name = f"fleet{edges}"
    settings = {"MAX_RUNNING": str(EDGES), "MAX_QUEUE": "50", "TOKEN_MS": str(TOKEN_MS)}
    with echo_cloud(start_s=start_s, **settings) as (cloud, _):
        progress(f"{name}: {edges} edges for {seconds:g} s")
        with asyncio.Runner() as runner:  # inspect_ai replaces `asyncio.run` by one that leaves its loop open
            ends = runner.run(run_edges(cloud, edges, seconds))
    whole, lost, refused, unexplained = (ends[end] for end in (WHOLE, LOST, REFUSED, NO_RETRY_AFTER))
    if not whole:
        raise NotMeasured(f"no request was admitted; requests by their end: {dict(ends)}")
    how = (
        f"admitted streams that were incomplete ({lost} of {whole + lost}) and refusals without Retry-After ({unexplained} of "
        f"{refused}): {edges} edges for {seconds:g} s on a cloud with room for {EDGES}"
    )
    return Measurement(
        [Figure(f"{name}_lost", lost + unexplained, how, at_most=0)],
        {f"{name}_whole": whole, f"{name}_sent_away": refused},
    )


def measure_hot_path(progress: Progress, *, start_s: float) -> Measurement:
    """Compare the cloud's processor time for a request with a stored key, limits and the ledger, and without them."""
    with tempfile.TemporaryDirectory(prefix="gkt-bench-") as folder:
        store = f"sqlite:///{folder}/cloud.sqlite"
        key = _make_key(store)
        quick = {"MAX_RUNNING": str(HOT_STREAMS), "TOKEN_MS": "0"}
        with (
            echo_cloud(start_s=start_s, **quick) as plain,
            echo_cloud(start_s=start_s, key=key, STORE_URL=store, **quick) as metered,
        ):
            targets = {"plain": plain, "metered": metered}
            for target in targets.values():
                progress("hot_path_ms: warming up")
                _cpu_ms(target, 0)
            spent = Rounds(HOT_ROUNDS, progress=progress).take_turns("hot_path_ms", targets, range(HOT_ROUNDS), _cpu_ms)
    extra_ms = [one - other for one, other in zip(spent["metered"], spent["plain"], strict=True)]
    how = (
        f"processor time of a request for key, limits and ledger: {HOT_REQUESTS} requests of {HOT_TOKENS} tokens, {HOT_STREAMS} "
        f"at once, SQLite, median of {HOT_ROUNDS} rounds"
    )
    return Measurement(
        [Figure("hot_path_ms", median(extra_ms), how, at_most=1)],
        {"request_ms": median(spent["plain"]), "metered_request_ms": median(spent["metered"])},
    )


def _cpu_ms(target: tuple[Server, int], _: int) -> float:
    cloud, pid = target
    before = cpu_seconds(pid)
    for _ in range(HOT_REQUESTS // HOT_STREAMS):
        requests = new_requests(HOT_STREAMS, HOT_TOKENS)
        complete(run_streams(cloud, requests), requests)
    return 1000 * (cpu_seconds(pid) - before) / HOT_REQUESTS


def _make_key(store: str) -> str:
    """Create a key with limits that are never reached."""
    limits = ["--max-running", "1000", "--requests-per-minute", "1000000", "--tokens-per-minute", "1000000000"]
    return gkt_output("keys", "create", "bench", *limits, variables={"GKT_CLOUD_STORE_URL": store}).split()[-1]


async def run_edges(server: Server, edges: int, seconds: float) -> Counter[str]:
    """Run edges for some seconds. Return the number of requests by their end."""
    ends: Counter[str] = Counter()
    until = time.monotonic() + seconds
    await asyncio.gather(*(_edge(server, until, ends) for _ in range(edges)))
    return ends


async def _edge(server: Server, until: float, ends: Counter[str]) -> None:
    """Send one request after the other; after a refusal, wait as long as it asks."""
    while time.monotonic() < until:
        try:
            status, headers, body = await _send(server, new_requests(1, TOKENS)[0])
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            ends.update((LOST, type(error).__name__))
            continue
        if status == 200:
            ends[WHOLE if b"event: done" in body else LOST] += 1
            continue
        ends.update((REFUSED, str(status)))
        retry_after = headers.get("retry-after")
        ends[NO_RETRY_AFTER] += retry_after is None or status not in {429, 503}
        await asyncio.sleep(min(float(retry_after or WAIT_S), max(0.0, until - time.monotonic())))


async def _send(server: Server, request: StreamRequest) -> tuple[int, Mapping[str, str], bytes]:
    """Return status, headers and body of a response. The body is not parsed, because the cloud needs the cores."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(http_request(h11.Connection(h11.CLIENT), server, request))
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = [line.partition(":") for line in lines[1:] if line]
        headers = {name.lower(): value.strip() for name, _, value in fields}
        return int(lines[0].split()[1]), headers, await reader.read()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
