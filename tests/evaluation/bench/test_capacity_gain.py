"""The operator's gain from guidance, with a server whose speed under load is known, so that the gain can be calculated."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evaluation.bench import ab_rounds
from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.capacity_gain import ANSWER_TOKENS, BASE, LADDER, Edges, measure_gain
from evaluation.figures import NotMeasured
from evaluation.loadgen.apis import Server, StreamRequest, StreamResult

SERVER = Server("cloud", "http://cloud")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ab_rounds, "REST_S", 0)


class Shared:
    """Each token takes `token_s`, and `share_s` for each running stream. The first one takes `first_s` more."""

    def __init__(self, token_s: float, share_s: float, first_s: float = 0.0) -> None:
        self.asked: list[tuple[int, list[int]]] = []
        self.prompts: list[str] = []
        self._token_s, self._share_s, self._first_s = token_s, share_s, first_s

    def __call__(self, server: Server, requests: Sequence[StreamRequest], *, concurrency: int) -> list[StreamResult]:
        self.asked.append((concurrency, [request.max_tokens for request in requests]))
        self.prompts += [request.prompt for request in requests]
        free = [0.0] * concurrency
        return [self._result(request, free, concurrency) for request in requests]

    def _result(self, request: StreamRequest, free: list[float], concurrency: int) -> StreamResult:
        place = free.index(min(free))
        sent_s = free[place]
        free[place] += self._first_s + request.max_tokens * (self._token_s + self._share_s * concurrency)
        return StreamResult(sent_s, [free[place]], free[place], "length", 5, request.max_tokens)


def gains(server: Shared, lengths: Sequence[int], student_per_s: float = 1000.0) -> tuple[float, float]:
    result = measure_gain(SERVER, Edges(lengths, student_per_s), Rounds(1, run=server))
    values = {figure.name: figure.value for figure in result.figures}
    return values["operator_gain_40"], values["operator_gain_adaptive"]


def test_a_teacher_that_batches_for_nothing_has_its_most_streams_under_way() -> None:
    server = Shared(0.1, 0.0)
    fixed, adaptive = gains(server, [20])
    most = max(LADDER) / BASE
    assert fixed == pytest.approx(most * 200 / 40)
    assert adaptive == pytest.approx(most * 200 / 20)
    assert len(set(server.prompts)) == len(server.prompts), "no prompt is met twice"
    assert server.asked[0] == (BASE, [ANSWER_TOKENS] * 12)


def test_a_teacher_that_gains_nothing_by_batches_gains_by_the_tokens() -> None:
    fixed, adaptive = gains(Shared(0.0, 0.1), [20])
    assert fixed == pytest.approx(200 / 40)
    assert adaptive == pytest.approx(200 / 20)


def test_no_more_streams_are_counted_than_keep_the_p95() -> None:
    # Alone: 4 at once take 200 * 0.1 s. Guided, the student takes 16 s of the 20: the teacher's 40 may take 4 s.
    fixed, _ = gains(Shared(0.09, 0.0025), [20], student_per_s=10.0)
    assert fixed == pytest.approx(200 / 40)


def test_answers_that_take_no_guidance_cost_nothing() -> None:
    _, half = gains(Shared(0.1, 0.01), [20, 0] * 10)
    _, all_of_them = gains(Shared(0.1, 0.01), [20] * 20)
    assert half == pytest.approx(2 * all_of_them)


def test_students_that_are_too_slow_leave_no_gain() -> None:
    with pytest.raises(NotMeasured, match="no concurrency keeps the p95"):
        gains(Shared(0.1, 0.0), [20], student_per_s=5.0)
