"""An edge with a policy file: the file's defaults, and the options that override them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_student.answering.strategies import STRATEGIES
from edge_student.app import create_app
from edge_student.policy import PolicyResolver
from edge_student.settings import EdgeSettings
from shared.errors import ConfigurationError
from shared.policy_file import PolicyFile
from shared.protocol.gkt import Mode
from tests.edge_student.fakes import ScriptedCloud, ScriptedStudent
from tests.edge_student.scripted_edge import edge
from tests.gkt.run_command import gkt


def written(folder: Path, **fields: Any) -> str:
    file = folder / "policy.json"
    PolicyFile(**{"name": "maths", "mode": Mode.FIXED, **fields}).write(file)
    return str(file)


async def test_the_file_decides_where_a_request_says_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, mode=Mode.FIXED, template="answer@1")
    cases: list[tuple[dict[str, Any], str, str | None]] = [
        ({"model": "gkt"}, "fixed", "maths"),
        ({"model": "gkt", "gkt": {"max_guidance_tokens": 1}}, "fixed", "maths"),
        ({"model": "gkt", "gkt": {"mode": "off"}}, "off", None),
        ({"model": "gkt", "gkt": {"mode": "fixed"}}, "fixed", None),
        ({"model": "gkt-student"}, "off", None),
        ({"model": "gkt-teacher"}, "teacher", None),
    ]
    async with edge(policy_file=file) as running:
        for body, mode, policy in cases:
            report = (await running.chat(**body)).json()["gkt"]
            assert (report["mode"], report["policy"]) == (mode, policy)
        assert running.cloud.requests[0].template == "answer@1"


async def test_a_mode_of_the_file_takes_effect(tmp_path: Path) -> None:
    async with edge(policy_file=written(tmp_path, mode=Mode.OFF)) as running:
        report = (await running.chat(model="gkt")).json()["gkt"]
        assert (report["mode"], report["policy"], running.cloud.requests) == ("off", "maths", [])
    async with edge() as running:
        assert (await running.chat(model="gkt")).json()["gkt"]["policy"] is None


async def test_a_policy_for_a_share_of_the_requests_asks_the_cloud_for_these_alone(tmp_path: Path) -> None:
    async with edge(policy_file=written(tmp_path, rollout_fraction=0.5)) as running:
        reports = [(await running.chat(model="gkt", seed=seed)).json()["gkt"] for seed in range(20)]
        again = (await running.chat(model="gkt", seed=0)).json()["gkt"]
        asked = len(running.cloud.requests)
    modes = [report["mode"] for report in reports]
    assert set(modes) == {"fixed", "off"}
    assert all(report["policy"] == "maths" for report in reports)
    assert asked == [*modes, again["mode"]].count("fixed")
    assert again["mode"] == modes[0]


def test_what_is_set_wins_over_the_file_and_the_file_over_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, mode=Mode.REVIEW, max_guidance_tokens=300, acceptance_threshold=0.3, handback_after=0)
    monkeypatch.setenv("GKT_EDGE_POLICY_FILE", file)
    monkeypatch.setenv("GKT_EDGE_HANDBACK_AFTER", "5")
    policy = PolicyResolver.from_settings(EdgeSettings(), STRATEGIES).resolve("gkt")
    assert (policy.mode, policy.max_guidance_tokens, policy.acceptance_threshold) == (Mode.REVIEW, 300, 0.3)
    assert policy.handback_after == 5, "set in the environment"
    assert policy.confidence_threshold is None, "the file does not set it"
    assert policy.file == "maths"

    monkeypatch.setenv("GKT_EDGE_MODE", "fixed")
    policy = PolicyResolver.from_settings(EdgeSettings(), STRATEGIES).resolve("gkt")
    assert (policy.mode, policy.max_guidance_tokens, policy.file) == (Mode.FIXED, 300, None)


def test_an_app_with_a_bad_file_is_not_made(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"format": 7}')
    with pytest.raises(ConfigurationError, match="this gkt reads format 1"):
        create_app(EdgeSettings(policy_file=str(file)), student=ScriptedStudent("x"), cloud=ScriptedCloud())


def test_a_mode_without_a_strategy_is_named(tmp_path: Path) -> None:
    file = written(tmp_path, mode="magic")
    for settings, place in (
        (EdgeSettings(mode="magic"), "GKT_EDGE_MODE"),
        (EdgeSettings(policy_file=file), f"{file}: mode"),
    ):
        with pytest.raises(ConfigurationError, match=f"{place}: unknown mode 'magic'; available: .*review"):
            PolicyResolver.from_settings(settings, STRATEGIES)


async def test_a_bad_file_ends_the_command_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"format": 1, "name": "x", "mode": "review", "acceptance_threshold": NaN}')
    given = await gkt("edge", "--policy", str(file))
    in_environment = await gkt("edge", environment={"GKT_EDGE_POLICY_FILE": str(tmp_path / "none.json")})
    assert (given.status, in_environment.status) == (1, 1)
    assert "policy.json: acceptance_threshold: Input should be a finite number" in given.err
    assert "none.json cannot be read" in in_environment.err
    assert (given.err.count("\n"), in_environment.err.count("\n")) == (1, 1)
