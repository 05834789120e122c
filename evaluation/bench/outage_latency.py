"""What a cloud that is away costs a request: once its deadline, and with the breaker open nothing that can be felt."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from evaluation.bench.end_to_end import Effort
from evaluation.bench.questions import questions
from evaluation.bench.results import Result, Say
from evaluation.figures import Figure, NotMeasured, median
from evaluation.loadgen.client import Client
from evaluation.loadgen.timeline import Answer
from evaluation.servers.services import lone_edge
from shared.protocol.gkt import FallbackReason, Mode

MAX_TOKENS = 16
SHORT_TOKENS = 4
"""Where an open breaker is measured: what it costs comes before the first token, and each further step adds its noise."""
SHORT_PAIRS = 5
"""Of such answers for each pair that is asked for: they take little time, and one alone tells little."""
DEADLINE_S = 5.0
"""To the teacher's first token; the edge's default."""
FAILURES_AT_MOST = 20
"""After which the breaker must have opened."""


def measure_delay(student: str, effort: Effort, say: Say, *, threads: int, start_s: float) -> Result:
    """An edge whose link to the cloud is dead: connections are made, and not a byte comes back. Raises NotMeasured."""
    with _dead_link() as url:
        settings = {
            "CLOUD_URL": url,
            "FIRST_TOKEN_DEADLINE_S": str(DEADLINE_S),
            "BREAKER_OPEN_S": "3600",
            "THREADS": str(threads),
        }
        with lone_edge(student, settings, start_s=start_s) as edge_url, Client(edge_url, url, None) as client:
            return measure_dead_link(client, effort, say, deadline_s=DEADLINE_S)


def measure_dead_link(client: Client, effort: Effort, say: Say, *, deadline_s: float) -> Result:
    """Of an edge that has not been asked yet. The same question each time, so that every prompt is computed already."""
    alone = [_ask(client, Mode.OFF).total_s for _ in range(10)][1:]
    waited: list[float] = []
    for number in count(1):
        say(f"a dead link: request {number}")
        answer = _ask(client, Mode.FIXED)
        if answer.report.fallback is FallbackReason.BREAKER_OPEN:
            break
        if answer.report.fallback is None or number == FAILURES_AT_MOST:
            raise NotMeasured(f"the breaker does not open: request {number} ended with {answer.report.fallback}")
        waited.append(answer.total_s - median(alone))
    if not waited:
        raise NotMeasured("the breaker was open before anything was asked")
    extras: list[float] = []
    pairs = SHORT_PAIRS * effort.pairs
    for number in range(pairs):
        say(f"with the breaker open: pair {number + 1} of {pairs}")
        order = (Mode.OFF, Mode.FIXED) if number % 2 else (Mode.FIXED, Mode.OFF)
        answers = {mode: _ask(client, mode, SHORT_TOKENS) for mode in order}
        if answers[Mode.FIXED].report.fallback is not FallbackReason.BREAKER_OPEN:
            raise NotMeasured("the breaker did not stay open")
        extras.append(1e3 * (answers[Mode.FIXED].total_s - answers[Mode.OFF].total_s))
    return Result(
        [
            Figure(
                "breaker_open_extra_ms",
                median(extras),
                f"whole time with the breaker open less that of mode off, {SHORT_TOKENS} tokens, median of {len(extras)} pairs "
                "in turn",
                at_most=5,
            ),
            Figure(
                "dead_link_extra_s",
                waited[0],
                f"whole time of the first request on a dead link less that of mode off; the deadline is {deadline_s:g} s, and "
                f"the breaker opens after {len(waited)} such requests in a row",
                at_most=deadline_s,
            ),
        ],
        {"dead_link_extra_most_s": max(waited), "dead_link_requests_that_waited": float(len(waited))},
    )


def _ask(client: Client, mode: Mode, max_tokens: int = MAX_TOKENS) -> Answer:
    return client.answer(questions()[0], model="gkt", mode=mode, max_tokens=max_tokens, degraded=True)


@contextmanager
def _dead_link() -> Iterator[str]:
    """A port that the kernel lets connect to, behind which nobody reads or answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
