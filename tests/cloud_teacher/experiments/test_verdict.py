"""Verdicts are words with numbers behind them, and are given on healthy data only."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud_teacher.experiments.comparison import ArmData
from cloud_teacher.experiments.health import ExperimentData
from cloud_teacher.experiments.verdict import TreatmentResult, VerdictKind, assess
from tests.cloud_teacher.experiments.arm_data import SAFE, agreement, data
from tests.shared.experiments.fixtures import FIELDS, running

HARMED = SAFE | {"fallback": (0.20, 0.02)}
UNDECIDED = SAFE | {"fallback": (0.05, 0.02)}


def result(found: ExperimentData, **changes: Any) -> TreatmentResult:
    (only,) = assess(running(**changes), found).results
    return only


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (data(400, primary=(0.84, 0.80)), "ship: shadow_agreement 0.84 against 0.8, difference 0.04 [0.01"),
        (data(400, primary=(0.76, 0.80)), "roll back: worse on the primary metric: shadow_agreement 0.76 against 0.8"),
        (data(900, primary=(0.80, 0.80)), "no difference within ±0.02 (shadow_agreement 0.8 against 0.8"),
        (data(100, primary=(0.81, 0.80)), "collecting, about "),
        (ExperimentData({}), "collecting, about 50 more"),
        (data(400, primary=(0.84, 0.80), rates=HARMED), "roll back: fallback is worse by more than 0.05: fallback 0.2"),
        (data(300, primary=(0.84, 0.80), rates=UNDECIDED), "collecting, about "),
        (
            data(400, primary=(0.84, 0.80), exposed=(500, 300)),
            "unhealthy: sample ratio: now 300, short 500; intended 1 : 1 (p = ",
        ),
        (
            data(400, primary=(0.84, 0.80), mixed_units=5),
            "unhealthy: 5 of 805 units were seen in more than one arm",
        ),
    ],
)
def test_words(found: ExperimentData, words: str) -> None:
    assert str(result(found).verdict).startswith(words)


def test_a_better_treatment_waits_for_its_guardrails_by_name() -> None:
    verdict = result(data(300, primary=(0.84, 0.80), rates=UNDECIDED)).verdict
    assert verdict.kind is VerdictKind.COLLECTING
    assert verdict.more_units is not None
    assert "undecided: fallback" in str(verdict)


def test_a_harmed_signal_does_not_decide_the_verdict() -> None:
    found = data(400, primary=(0.84, 0.80), rates=SAFE | {"feedback": (0.2, 0.8)})
    only = result(found)
    assert only.verdict.kind is VerdictKind.SHIP
    assert [check.guardrail.name for check in only.harmed] == ["feedback"]


def test_lower_is_better_for_some_metrics() -> None:
    primary = FIELDS["primary"] | {"better": "lower"}
    assert result(data(400, primary=(0.76, 0.80)), primary=primary).verdict.kind is VerdictKind.SHIP
    assert result(data(400, primary=(0.84, 0.80)), primary=primary).verdict.kind is VerdictKind.ROLL_BACK


def test_an_aa_test_that_finds_a_difference_is_unhealthy() -> None:
    arms = [{"name": "now"}, {"name": "short"}]
    broken = result(data(400, primary=(0.84, 0.80)), arms=arms, aa=True)
    assert str(broken.verdict).startswith("unhealthy: the arms are equal, yet they differ: shadow_agreement 0.84")
    assert result(data(900), arms=arms, aa=True).verdict.kind is VerdictKind.NO_DIFFERENCE


def test_several_treatments_share_the_error_probability() -> None:
    arms = [*FIELDS["arms"], {"name": "long", "policy": "maths@5"}]
    two = data(400, primary=(0.83, 0.80))
    three = ExperimentData({**two.arms, "long": ArmData(400, {"shadow_agreement": agreement(0.80, 400, seed=9)})})
    alone, (short, long) = result(two), assess(running(arms=arms), three).results
    assert (short.arm, long.arm) == ("short", "long")
    assert alone.primary.low is not None
    assert short.primary.low is not None
    assert short.primary.low < alone.primary.low


def test_the_numbers_behind_a_verdict_are_json() -> None:
    assessment = assess(running(), data(30))
    numbers = json.loads(json.dumps(assessment.numbers(), allow_nan=False))
    assert numbers["problems"] == []
    assert numbers["treatments"][0]["arm"] == "short"
    assert [check["metric"] for check in numbers["treatments"][0]["guardrails"]] == [
        "fallback",
        "total_ms>4000",
        "cost_usd",
        "feedback",
    ]
