"""The latency of a dead link, measured on an edge that reports how long it waited."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest

from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.outage_latency import measure_dead_link
from evaluation.figures import NotMeasured
from evaluation.loadgen.client import Client, connected
from shared.protocol.gkt import FallbackReason, Mode, Source
from shared.protocol.openai_requests import ChatCompletionRequest
from tests.evaluation.scripted import answer_reads


def edge(*fallbacks: FallbackReason) -> Callable[[httpx.Request], httpx.Response]:
    """Guided requests fall back for these reasons in turn, then always for the last one."""
    left = list(fallbacks)

    def answer(request: httpx.Request) -> httpx.Response:
        asked = ChatCompletionRequest.model_validate_json(request.content)
        assert asked.gkt is not None
        fallback = None
        if asked.gkt.mode != Mode.OFF:
            fallback = left.pop(0) if len(left) > 1 else left[0]
        reads = answer_reads([(0.0, " word", Source.STUDENT)], total_s=0, fallback=fallback)
        return httpx.Response(200, content=[data for _, data in reads])

    return answer


def client(*fallbacks: FallbackReason) -> AbstractContextManager[Client]:
    return connected("http://edge", "http://cloud", None, transport=httpx.MockTransport(edge(*fallbacks)))


def test_requests_wait_until_the_breaker_opens() -> None:
    late, opened = FallbackReason.FIRST_TOKEN_DEADLINE, FallbackReason.BREAKER_OPEN

    with client(late, late, opened) as asking:
        result = measure_dead_link(asking, Rounds(3), deadline_s=5)

    assert [(figure.name, figure.at_most) for figure in result.figures] == [
        ("breaker_open_extra_ms", 5),
        ("dead_link_extra_s", 5),
    ]
    assert result.raw["dead_link_requests_that_waited"] == 2


def test_a_breaker_that_never_opens_is_not_measured() -> None:
    with client(FallbackReason.STALLED) as asking, pytest.raises(NotMeasured, match="does not open"):
        measure_dead_link(asking, Rounds(3), deadline_s=5)
