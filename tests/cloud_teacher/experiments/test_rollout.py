"""The rollout controller: each decision, its reason, and what it leaves of the experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from cloud_teacher.experiments.comparison import ArmData
from cloud_teacher.experiments.health import ExperimentData
from cloud_teacher.experiments.rollout import Action, Decision, Step, apply, decide
from cloud_teacher.experiments.statistics.sums import Sums
from shared.experiments.checks import check_change
from shared.experiments.definition import Experiment, Status
from tests.cloud_teacher.experiments.arm_data import SAFE, agreement, data, rate
from tests.shared.experiments.fixtures import FIELDS, running

BEGAN = datetime(2026, 11, 29, 12, tzinfo=UTC)
LATER = BEGAN + timedelta(hours=2)
STEP = Step(BEGAN)
HARMED = SAFE | {"fallback": (0.20, 0.02)}
SIGNAL = SAFE | {"feedback": (0.2, 0.8)}


def decision(found: ExperimentData, *, step: Step = STEP, now: datetime = LATER, **changes: Any) -> Decision:
    experiment = running(**changes)
    decided = decide(experiment, found, step, now)
    check_change(experiment, apply(experiment, decided))
    json.dumps(decided.numbers, allow_nan=False)
    return decided


def test_a_step_ends_when_time_units_and_guardrails_allow() -> None:
    assert decision(data(400), percent=1) == Decision(
        Action.ADVANCE,
        "from 1 to 5 %: enough data, and no guardrail is harmed",
        5,
        None,
        decision(data(400), percent=1).numbers,
    )


@pytest.mark.parametrize(
    ("found", "step", "now", "reason"),
    [
        (data(400), STEP, BEGAN + timedelta(minutes=5), "the step lasts 3600 s; 300 s have passed"),
        (data(400), STEP, BEGAN - timedelta(days=1), "the step lasts 3600 s; 0 s have passed"),
        (data(400), Step(BEGAN, {"now": 100, "short": 380}), LATER, "arm 'short' has 20 new units of 50"),
        (data(60), STEP, LATER, "guardrails are undecided: fallback (about "),
        (ExperimentData({}), STEP, LATER, "arm 'now' has 0 new units of 50"),
    ],
)
def test_otherwise_it_waits(found: ExperimentData, step: Step, now: datetime, reason: str) -> None:
    decided = decision(found, step=step, now=now, percent=1)
    assert (decided.action, decided.percent) == (Action.WAIT, 1)
    assert decided.reason.startswith(reason)


def test_harm_rolls_back_at_once_with_reason_and_numbers() -> None:
    decided = decision(data(400, rates=HARMED), percent=5, now=BEGAN)
    assert decided.action is Action.ROLL_BACK
    assert decided.arm == "short"
    assert decided.reason.startswith(
        "fallback is worse by more than 0.05: fallback 0.2 against 0.02, difference 0.18 ["
    )
    treatment = json.loads(json.dumps(decided.numbers))["treatments"][0]
    assert treatment["guardrails"][0]["standing"] == "harmed"
    assert treatment["guardrails"][0]["harm_low"] > 0
    assert apply(running(percent=5), decided).status is Status.ROLLED_BACK


def test_a_worse_primary_metric_rolls_back() -> None:
    assert decision(data(400, primary=(0.76, 0.80)), percent=5).action is Action.ROLL_BACK


def test_harm_rolls_back_even_if_the_data_is_unhealthy() -> None:
    found = data(400, rates=HARMED, exposed=(400, 600))
    assert decision(found, percent=5).action is Action.ROLL_BACK
    only_unhealthy = decision(data(400, exposed=(400, 600)), percent=5)
    assert only_unhealthy.action is Action.PAUSE
    assert only_unhealthy.reason.startswith("unhealthy: sample ratio")


def test_signals_only_pause_and_can_be_muted() -> None:
    decided = decision(data(400, rates=SIGNAL), percent=5)
    assert decided.action is Action.PAUSE
    assert decided.reason.startswith("signal: feedback is worse by more than 0.1")
    assert apply(running(percent=5), decided).status is Status.PAUSED
    assert decision(data(400, rates=SIGNAL), percent=5, muted_signals=["feedback"]).action is Action.ADVANCE


def test_no_step_waits_for_a_signal() -> None:
    found = data(400)
    assert "feedback" not in found.arm("now").sums
    assert decision(found, percent=5).action is Action.ADVANCE


def test_the_last_step_ships() -> None:
    found = data(400, primary=(0.84, 0.80))
    assert decision(found, percent=50).action is Action.ADVANCE
    decided = decision(found, percent=100)
    assert (decided.action, decided.arm) == (Action.SHIP, "short")
    shipped = apply(running(percent=100), decided)
    assert (shipped.status, shipped.winner) == (Status.SHIPPED, "short")


@pytest.mark.parametrize(
    ("choice", "action"), [("pause", Action.PAUSE), ("ship", Action.SHIP), ("roll_back", Action.ROLL_BACK)]
)
def test_no_difference_ends_as_the_experiment_says(choice: str, action: Action) -> None:
    decided = decision(data(900), percent=100, on_no_difference=choice)
    assert decided.action is action
    assert decided.reason.startswith("no difference within ±0.02")


def test_the_last_step_waits_for_a_verdict() -> None:
    decided = decision(data(300, primary=(0.81, 0.80)), percent=100)
    assert decided.action is Action.WAIT
    assert decided.reason.startswith("collecting, about ")


def test_the_best_of_several_treatments_is_shipped() -> None:
    arms = [*FIELDS["arms"], {"name": "long", "policy": "maths@5"}]
    two = data(500, primary=(0.84, 0.80))
    sums = dict(two.arm("now").sums)
    three = ExperimentData({**two.arms, "long": ArmData(500, sums | {"shadow_agreement": agreement(0.87, 500)})})
    decided = decision(three, percent=100, arms=arms)
    assert (decided.action, decided.arm) == (Action.SHIP, "long")


def test_a_paused_experiment_waits() -> None:
    experiment = running(status="paused", percent=5)
    decided = decide(experiment, data(400, rates=HARMED), STEP, LATER)
    assert (decided.action, decided.reason) == (Action.WAIT, "the experiment is paused")


def test_an_aa_test_climbs_the_ramp_and_never_ends_by_itself() -> None:
    arms = [{"name": "now"}, {"name": "short"}]
    assert decision(data(900), percent=5, arms=arms, aa=True).action is Action.ADVANCE
    assert decision(data(900), percent=100, arms=arms, aa=True).action is Action.WAIT


def run_rollout(means: tuple[float, float], fallbacks: tuple[float, float]) -> tuple[Experiment, list[Decision], int]:
    """Let outcomes arrive, 25 at a time, with a decision after each 25; return the end and the exposures until then."""
    rng = np.random.default_rng(4)
    experiment = running(percent=1, guardrails=FIELDS["guardrails"][:1], step_s=0.0)
    step, decisions, now = STEP, [], BEGAN
    values: Mapping[str, list[float]] = {"short": [], "now": []}
    fallen = {"short": 0, "now": 0}
    for exposures in range(25, 10_000, 25):
        now += timedelta(minutes=1)
        for _ in range(25):
            place = int(rng.integers(2))
            name = ("short", "now")[place]
            values[name].append(rng.normal(means[place], 0.1))
            fallen[name] += int(rng.random() < fallbacks[place])
        arms = {}
        for name, numbers in values.items():
            x = np.array(numbers)
            sums = {
                "shadow_agreement": Sums(len(x), float(x.sum()), float(x @ x)),
                "fallback": rate(fallen[name], len(x)),
            }
            arms[name] = ArmData(len(x), sums)
        found = ExperimentData(arms)
        decided = decide(experiment, found, step, now)
        if decided.action is not Action.WAIT:
            decisions.append(decided)
            after = apply(experiment, decided)
            check_change(experiment, after)
            experiment = after
            step = Step(now, {name: arm.units for name, arm in arms.items()})
        if not experiment.status.active or experiment.status is Status.PAUSED:
            return experiment, decisions, exposures
    raise AssertionError("no end")


def test_a_better_treatment_climbs_every_step_and_is_shipped() -> None:
    end, decisions, _ = run_rollout((0.84, 0.80), (0.02, 0.02))
    assert [decided.percent for decided in decisions] == [5, 10, 25, 50, 100, 100]
    assert (end.status, end.winner) == (Status.SHIPPED, "short")


def test_a_harmful_treatment_is_rolled_back_within_400_exposures() -> None:
    end, decisions, exposures = run_rollout((0.80, 0.80), (0.25, 0.02))
    assert end.status is Status.ROLLED_BACK
    assert end.percent == 1, "it never left the first step"
    assert decisions[-1].reason.startswith("fallback is worse")
    assert exposures <= 400
