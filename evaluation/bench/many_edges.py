"""One cloud and hundreds of edges. The teacher has no model and writes a token every 50 ms, so that what is seen is the service.

What a cloud adds to a token is how much later than that it comes at a client behind the one before.
"""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import h11

from evaluation.bench.results import Result, Say
from evaluation.figures import Figure, NotMeasured, median, quantile
from evaluation.loadgen.apis import Ask, GuidanceApi, Server
from evaluation.loadgen.generator import http_request, together
from evaluation.servers.machine import cpu_seconds, resident_bytes
from evaluation.servers.services import Service, await_ready, cloud, said_by_gkt
from shared.echo_text import NONCE_LETTERS, Mark

EDGES = 200
TOKENS = 100
TOKEN_MS = 50.0
MANY_EDGES = 1000
MANY_S = 60.0
ADDED_MS, MB_PER_EDGE, HOT_MS = 50.0, 1.0, 1.0
HOT_REQUESTS, HOT_STREAMS, HOT_TOKENS, HOT_ROUNDS = 320, 16, 10, 3
MB = 1 << 20
WAIT_S = 1.0
"""Between two requests of an edge that was sent away, where it was not told for how long."""


@dataclass(frozen=True)
class Echo:
    """A cloud with a teacher that has no model."""

    server: Server
    service: Service


@contextmanager
def echo_cloud(*, start_s: float, key: str | None = None, **settings: str) -> Iterator[Echo]:
    """Ready. Settings are by their names in capitals."""
    key = key or secrets.token_urlsafe(16)
    until = time.monotonic() + start_s
    with (
        tempfile.TemporaryDirectory(prefix="gkt-bench-") as folder,
        cloud(
            "echo",
            key,
            folder=Path(folder),
            start_s=start_s,
            settings=settings,
            environment={},
            module="cloud_teacher.echo",
        ) as (service, url),
    ):
        await_ready(url, until, service)
        yield Echo(Server("cloud", url, api=GuidanceApi(), key=key), service)


def questions(count: int, words: int) -> list[str]:
    """Each with an answer of its own."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    nonces = ("".join(secrets.choice(letters) for _ in range(NONCE_LETTERS)) for _ in range(count))
    return [f"Say it. {Mark(nonce, words)}" for nonce in nonces]


def measure_fleet(say: Say, *, start_s: float, edges: int = EDGES, tokens: int = TOKENS) -> Result:
    """All edges at once: what is lost, what is added to a token, what an edge takes of memory."""
    running = {"MAX_RUNNING": str(edges), "TOKEN_MS": str(TOKEN_MS)}
    with echo_cloud(start_s=start_s, **running) as echo:
        say(f"fleet{edges}: all of them once, so that everything is loaded")
        together(echo.server, _asks(edges, 2))
        idle = resident_bytes(echo.service.pid)
        say(f"fleet{edges}: {edges} streams of {tokens} tokens")
        with _peak(echo.service.pid) as peak:
            written = together(echo.server, _asks(edges, tokens))
        most = max(peak)
    lost = sum(stream.finish != "length" or stream.completion_tokens != tokens for stream in written)
    added = [1000 * (later - earlier) - TOKEN_MS for stream in written for earlier, later in pairwise(stream.times)]
    overlap = min(stream.end_s for stream in written) - max(stream.first_s for stream in written)
    if overlap <= 0:
        raise NotMeasured(f"the {edges} streams did not all run at once")
    how = f"{edges} edges at once, {tokens} tokens each, one every {TOKEN_MS:g} ms"
    return Result(
        [
            Figure(f"fleet{edges}_lost", lost, f"streams that did not come whole: {how}", at_most=0),
            Figure(
                f"fleet{edges}_p99_added_ms",
                quantile(added, 0.99),
                f"99th percentile of the time between two tokens, beyond the teacher's: {how}",
                at_most=ADDED_MS,
            ),
            Figure(
                f"fleet{edges}_mb_per_edge",
                max(0.0, (most - idle) / MB / edges),
                f"resident memory at its most ({most / MB:.0f} MB) over idle ({idle / MB:.0f} MB), an edge: {how}",
                at_most=MB_PER_EDGE,
            ),
        ],
        {f"fleet{edges}_median_added_ms": median(added)},
    )


@dataclass
class Tally:
    """What became of the requests of many edges."""

    whole: int = 0
    lost: int = 0
    sent_away: int = 0
    untold: int = 0
    """Sent away without being told when to come back."""
    errors: set[str] = field(default_factory=set)


def measure_many(say: Say, *, start_s: float, edges: int = MANY_EDGES, seconds: float = MANY_S) -> Result:
    """More edges than there is room for, for a while: who is let in gets all, the others are told to come back."""
    name = f"fleet{edges}"
    settings = {"MAX_RUNNING": str(EDGES), "MAX_QUEUE": "50", "TOKEN_MS": str(TOKEN_MS)}
    with echo_cloud(start_s=start_s, **settings) as echo:
        say(f"{name}: {edges} edges for {seconds:g} s")
        with asyncio.Runner() as runner:  # inspect_ai puts its own `asyncio.run` in place, which leaves its loop open
            tally = runner.run(_flood(echo.server, edges, seconds))
    if not tally.whole:
        raise NotMeasured(f"nobody was let in: {', '.join(sorted(tally.errors)) or 'nothing was answered'}")
    how = f"{edges} edges for {seconds:g} s on a cloud with room for {EDGES}"
    return Result(
        [
            Figure(
                f"{name}_lost",
                tally.lost + tally.untold,
                f"streams let in that did not come whole ({tally.lost} of {tally.whole + tally.lost}), and refusals without "
                f"a Retry-After ({tally.untold} of {tally.sent_away}): {how}",
                at_most=0,
            )
        ],
        {f"{name}_whole": tally.whole, f"{name}_sent_away": tally.sent_away},
    )


def measure_hot_path(say: Say, *, start_s: float) -> Result:
    """The cloud's processor time a request with a key of its own, its limits and the ledger, over without any of them."""
    with tempfile.TemporaryDirectory(prefix="gkt-bench-") as folder:
        store = f"sqlite:///{folder}/cloud.sqlite"
        key = _make_key(store)
        quick = {"MAX_RUNNING": str(HOT_STREAMS), "TOKEN_MS": "0"}
        with (
            echo_cloud(start_s=start_s, **quick) as bare,
            echo_cloud(start_s=start_s, STORE_URL=store, **quick) as full,
        ):
            metered = Echo(
                Server("metered cloud", full.server.url, full.server.options, GuidanceApi(), key), full.service
            )
            spent: dict[str, list[float]] = {bare.server.name: [], metered.server.name: []}
            for number in range(HOT_ROUNDS + 1):
                say(f"hot_path_ms: round {number} of {HOT_ROUNDS}")
                for echo in (bare, metered) if number % 2 else (metered, bare):
                    ms = _cpu_ms(echo)
                    if number:  # the first one warms up
                        spent[echo.server.name].append(ms)
    extra = [mine - other for mine, other in zip(spent[metered.server.name], spent[bare.server.name], strict=True)]
    how = f"{HOT_REQUESTS} requests of {HOT_TOKENS} tokens, {HOT_STREAMS} at once, SQLite, the median of {HOT_ROUNDS} rounds"
    return Result(
        [
            Figure(
                "hot_path_ms",
                median(extra),
                f"processor time a request for key, limits and ledger: {how}",
                at_most=HOT_MS,
            )
        ],
        {"request_ms": median(spent[bare.server.name]), "metered_request_ms": median(spent[metered.server.name])},
    )


def _asks(count: int, tokens: int) -> list[Ask]:
    return [Ask(question, tokens) for question in questions(count, 2 * tokens)]


def _cpu_ms(echo: Echo) -> float:
    before = cpu_seconds(echo.service.pid)
    for _ in range(HOT_REQUESTS // HOT_STREAMS):
        asks = _asks(HOT_STREAMS, HOT_TOKENS)
        written = together(echo.server, asks)
        if not all(stream.full(ask) for stream, ask in zip(written, asks, strict=True)):
            raise NotMeasured("an answer ended before its tokens were written")
    return 1000 * (cpu_seconds(echo.service.pid) - before) / HOT_REQUESTS


def _make_key(store: str) -> str:
    """A key with limits that are never met."""
    limits = ["--max-running", "1000", "--requests-per-minute", "1000000", "--tokens-per-minute", "1000000000"]
    return said_by_gkt("keys", "create", "bench", *limits, environment={"GKT_CLOUD_STORE_URL": store}).split()[-1]


@contextmanager
def _peak(pid: int) -> Iterator[list[int]]:
    """Resident sizes while something runs."""
    sizes: list[int] = [resident_bytes(pid)]
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.25):
            with suppress(NotMeasured):
                sizes.append(resident_bytes(pid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


async def _flood(server: Server, edges: int, seconds: float) -> Tally:
    tally = Tally()
    until = time.monotonic() + seconds
    await asyncio.gather(*(_edge(server, until, tally) for _ in range(edges)))
    return tally


async def _edge(server: Server, until: float, tally: Tally) -> None:
    """Asks, and asks again: at once when it got all, and when it was told to where it was sent away."""
    while time.monotonic() < until:
        try:
            status, headers, body = await _once(server, questions(1, 2 * TOKENS)[0])
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            tally.lost += 1
            tally.errors.add(type(error).__name__)
            continue
        if status == 200:
            whole = b"event: done" in body
            tally.whole += whole
            tally.lost += not whole
            continue
        tally.errors.add(str(status))
        tally.sent_away += 1
        told = headers.get("retry-after")
        tally.untold += told is None or status not in {429, 503}
        await asyncio.sleep(min(float(told or WAIT_S), max(0.0, until - time.monotonic())))


async def _once(server: Server, question: str) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of a request, without any parsing of what is in it: the cores are shared with the cloud."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(http_request(h11.Connection(h11.CLIENT), server, Ask(question, TOKENS)))
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(_header(line) for line in lines[1:] if line)
        return int(lines[0].split()[1]), headers, await reader.read()
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()
