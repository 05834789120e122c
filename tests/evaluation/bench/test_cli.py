"""The bench against scripted services: its measurements, the processes that it starts, and its output."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from evaluation.bench import ab_rounds, cli, end_to_end
from evaluation.bench.ab_rounds import Rounds
from evaluation.bench.prompts import questions
from evaluation.bench.session import Session
from evaluation.figures import Figure, Measurement, NotMeasured
from evaluation.loadgen.client import Client, connected
from evaluation.servers import machine
from evaluation.servers.processes import ServerProcess
from shared.child_process import ProcessFailed
from shared.protocol.gkt import Source
from shared.protocol.guidance import GuidanceRequest
from shared.protocol.openai_requests import ChatCompletionRequest
from tests.evaluation.scripted import Timed, answer_reads, guidance_reads

GUIDANCE: list[Timed] = [(0.0, " word", Source.TEACHER)] * 40
REST: list[Timed] = [(0.0, " word", Source.STUDENT)] * 64


class Services:
    """Both services behind one transport, with a list of their requests."""

    def __init__(self, *, status: int = 200) -> None:
        self.asked: list[tuple[str, str]] = []
        self.status = status

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/guidance":
            assert request.headers["authorization"] == "Bearer secret"
            guided = GuidanceRequest.model_validate_json(request.content)
            self.asked.append(("cloud", guided.messages[0].content))
            reads = guidance_reads([(0.0, " word")] * 40)
        else:
            asked = ChatCompletionRequest.model_validate_json(request.content)
            self.asked.append((asked.model, asked.messages[0].plain().content))
            reads = answer_reads(GUIDANCE + REST, total_s=0, teacher=40)
        return httpx.Response(self.status, content=[_slowly(data) for _, data in reads])


def _slowly(data: bytes) -> bytes:
    time.sleep(0.0002)
    return data


def _client(services: Callable[[httpx.Request], httpx.Response]) -> AbstractContextManager[Client]:
    return connected("http://edge", "http://cloud", "secret", transport=httpx.MockTransport(services))


def test_each_question_is_asked_both_ways_and_who_goes_first_alternates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ab_rounds, "REST_S", 0)
    services = Services()

    with _client(services) as client:
        result = end_to_end.measure_guidance(client, Rounds(4))

    counted = services.asked[2:]  # the first pair warms up
    assert [who for who, _ in counted] == ["gkt", "cloud", "cloud", "gkt"] * 2
    assert all(counted[at][1] == counted[at + 1][1] for at in range(0, 8, 2))
    assert len({question for _, question in counted}) == 4
    assert {f.name for f in result.figures} >= {"ttft_overhead_ms", "seam_gap_ratio"}


def test_a_refusal_is_not_measured() -> None:
    with _client(Services(status=503)) as client, pytest.raises(NotMeasured, match="503"):
        client.answer("q", model="gkt", max_tokens=10)


def test_guidance_that_ends_early_is_not_measured() -> None:
    body = b"".join(data for _, data in guidance_reads([(0.1, "a"), (0.2, "b")])[:-1])

    with _client(lambda _: httpx.Response(200, content=[body])) as client, pytest.raises(NotMeasured, match="early"):
        client.guidance("q", tokens=2)


def test_an_unreachable_service_is_not_measured() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with _client(refuse) as client, pytest.raises(NotMeasured, match="refused"):
        client.guidance("q", tokens=40)


def test_there_are_questions_enough_and_none_twice() -> None:
    asked = questions()

    assert len(asked) == len(set(asked)) > 30


def test_the_table_and_the_json_hold_every_figure(tmp_path: Path) -> None:
    figures = [Figure("seam_gap_ratio", 3, "so", at_most=2), Figure("speedup", 2.5, "so")]
    console = Console(record=True, width=120, file=io.StringIO())
    session = Session(console, console.status(""))

    session.busy_cores = 1.5
    session.measure("some", lambda: Measurement(figures, {"guided_s": 4.0}))
    session.report("small", {"student": "small"}, tmp_path / "figures.json", console)

    values = json.loads((tmp_path / "figures.json").read_text())
    assert (values["seam_gap_ratio"], values["speedup"], values["guided_s"], values["student"]) == (
        3,
        2.5,
        4.0,
        "small",
    )
    text = console.export_text()
    assert "not met" in text
    assert "1.5 cores were busy" in text


@pytest.mark.parametrize("options", [["--edge-url", "http://e"], ["--edge-url", "http://e", "--cloud-url", "http://c"]])
def test_a_running_edge_needs_its_cloud_and_its_process(options: list[str]) -> None:
    assert CliRunner().invoke(cli.app, options).exit_code == 2


def test_services_that_are_not_there_end_with_1() -> None:
    outcome = CliRunner().invoke(cli.app, ["--cloud-url", "http://127.0.0.1:9", "--start-s", "0"])

    assert outcome.exit_code == 1
    assert "not measured" in outcome.output


@pytest.mark.system
def test_stopping_a_service_stops_what_it_started(tmp_path: Path) -> None:
    script = "import subprocess as s, time; print(s.Popen(['sleep', '100']).pid, flush=True); time.sleep(100)"
    process = ServerProcess("edge", [sys.executable, "-c", script], tmp_path, {})
    process.start()
    while not (child := process.log.read_text().strip()):
        time.sleep(0.01)

    process.stop()

    until = time.monotonic() + 5
    while _runs(int(child)):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.system
def test_a_process_that_ended_is_reported_with_its_log(tmp_path: Path) -> None:
    process = ServerProcess("edge", [sys.executable, "-c", "print('no room'); raise SystemExit(3)"], tmp_path, {})
    process.start()
    with pytest.raises(ProcessFailed, match=r"(?s)the edge ended with status 3\..*no room"):
        process.await_port(30)
    process.stop()


def _runs(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_machine_and_a_process_are_described(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n")
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tx\nVmHWM:\t  900 kB\nVmRSS:\t  800 kB\n")

    assert machine.describe(tmp_path).endswith("cores, Fast CPU @ 3 GHz")
    assert machine.resident_bytes(7, tmp_path) == 800 * 1024
    assert machine.resident_bytes(os.getpid()) > 1_000_000
    with pytest.raises(NotMeasured):
        machine.resident_bytes(8, tmp_path)


def test_busy_cores_are_those_not_idle() -> None:
    assert 0 <= machine.busy_cores(0.2) <= machine.usable_cores()
