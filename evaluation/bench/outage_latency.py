"""Latency that a cloud outage adds to a request: one deadline at first, and almost nothing with an open circuit breaker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.prompts import questions
from evaluation.figures import Figure, Measurement, NotMeasured, median
from evaluation.loadgen.client import Client, connected
from evaluation.loadgen.timeline import TimedAnswer
from evaluation.servers.services import lone_edge
from shared.protocol.gkt import FallbackReason, Mode

MAX_TOKENS = 16
SHORT_TOKENS = 4
"""Length of answers with an open breaker. Its cost comes before the first token; every further token adds noise."""
SHORT_PAIRS = 5
"""Pairs of short answers for each pair that is requested: they are quick, and one pair is not significant."""
DEADLINE_S = 5.0
"""Deadline of the teacher's first token: the edge's default."""
MAX_FAILURES = 20
"""Failures after which the breaker must be open."""


def measure_outage(student: str, rounds: Rounds, *, threads: int, start_s: float) -> Measurement:
    """Measure an edge whose link to the cloud is dead: connections are accepted, and no byte comes back."""
    with _dead_link() as url:
        settings = {
            "CLOUD_URL": url,
            "FIRST_TOKEN_DEADLINE_S": str(DEADLINE_S),
            "BREAKER_OPEN_S": "3600",
            "THREADS": str(threads),
        }
        with lone_edge(student, settings, start_s=start_s) as edge, connected(edge.url, url, None) as client:
            return measure_dead_link(client, rounds, deadline_s=DEADLINE_S)


def measure_dead_link(client: Client, rounds: Rounds, *, deadline_s: float) -> Measurement:
    """Measure an edge that has had no request yet. All requests have one question, so that its prompt is always cached."""
    alone_s = median([_answer(client, Mode.OFF).total_s for _ in range(10)][1:])
    waited_s: list[float] = []
    for number in count(1):
        rounds.progress(f"dead link: request {number}")
        answer = _answer(client, Mode.FIXED)
        if answer.report.fallback is FallbackReason.BREAKER_OPEN:
            break
        if answer.report.fallback is None or number == MAX_FAILURES:
            raise NotMeasured(f"the breaker does not open: request {number} ended with {answer.report.fallback}")
        waited_s.append(answer.total_s - alone_s)
    if not waited_s:
        raise NotMeasured("the breaker was open before the first request")

    def short_answer_s(mode: Mode, _: int) -> float:
        answer = _answer(client, mode, SHORT_TOKENS)
        if mode is Mode.FIXED and answer.report.fallback is not FallbackReason.BREAKER_OPEN:
            raise NotMeasured("the breaker did not stay open")
        return answer.total_s

    pairs = replace(rounds, count=SHORT_PAIRS * rounds.count)
    modes: dict[str, Mode] = {mode: mode for mode in (Mode.FIXED, Mode.OFF)}
    times = pairs.take_turns("open breaker", modes, range(pairs.count), short_answer_s, rest=False)
    extras_ms = [1e3 * (one - two) for one, two in zip(times[Mode.FIXED], times[Mode.OFF], strict=True)]
    extra_how = (
        f"{SHORT_TOKENS} tokens: time with an open breaker minus time in mode off, median of {pairs.count} pairs"
    )
    dead_how = (
        f"the first request on a dead link: its time minus the time in mode off; the deadline is {deadline_s:g} s, and the "
        f"breaker opens after {len(waited_s)} such requests in a row"
    )
    return Measurement(
        [
            Figure("breaker_open_extra_ms", median(extras_ms), extra_how, at_most=5),
            Figure("dead_link_extra_s", waited_s[0], dead_how, at_most=deadline_s),
        ],
        {"dead_link_extra_most_s": max(waited_s), "dead_link_requests_that_waited": len(waited_s)},
    )


def _answer(client: Client, mode: Mode, max_tokens: int = MAX_TOKENS) -> TimedAnswer:
    return client.answer(questions()[0], mode=mode, max_tokens=max_tokens, degraded=True)


@contextmanager
def _dead_link() -> Iterator[str]:
    """Listen on a port whose connections the kernel accepts and no process reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
