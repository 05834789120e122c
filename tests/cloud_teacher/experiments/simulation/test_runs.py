"""Simulated experiments: error rates within bounds, effects found, and the same verdicts as the service gives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cloud_teacher.experiments.comparison import ArmData
from cloud_teacher.experiments.health import ExperimentData
from cloud_teacher.experiments.simulation.ramp import count_arm_changes
from cloud_teacher.experiments.simulation.runs import (
    ALPHA,
    BETTER,
    COLLECTING,
    NO_DIFFERENCE,
    TUNING_UNITS,
    WORSE,
    false_positive_rate,
    power,
    ratio_false_alarm_rate,
    verdicts,
)
from cloud_teacher.experiments.simulation.workloads import WORKLOADS, Workload
from cloud_teacher.experiments.statistics.sums import Sums
from cloud_teacher.experiments.verdict import VerdictKind, assess
from tests.shared.experiments.fixtures import running

EACH = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
WORDS = {BETTER: VerdictKind.SHIP, WORSE: VerdictKind.ROLL_BACK, NO_DIFFERENCE: VerdictKind.NO_DIFFERENCE}


@EACH
def test_aa_experiments_rarely_show_a_difference(workload: Workload) -> None:
    assert false_positive_rate(workload, runs=200, outcomes=1500, seed=2) <= 0.07


@EACH
def test_a_larger_effect_needs_fewer_outcomes(workload: Workload) -> None:
    smallest = workload.metric.smallest_effect
    points = [power(workload, multiple * smallest, runs=30, outcomes=12_000, seed=3) for multiple in (2, 4, 8)]
    needed = [point.outcomes for point in points if point.outcomes is not None]
    assert len(needed) == 3
    assert all(after < before for before, after in pairwise(needed))
    right = [point.better if workload.metric.better.sign > 0 else point.worse for point in points]
    assert min(right) >= 0.9


def test_the_intended_ratio_raises_no_alarm() -> None:
    assert ratio_false_alarm_rate((1, 1), runs=300, outcomes=3000, seed=2) <= 0.01


def test_no_unit_changes_its_arm() -> None:
    assert count_arm_changes(20_000) == 0


@EACH
def test_verdicts_equal_those_of_the_service(workload: Workload) -> None:
    rng = np.random.default_rng(6)
    metric = workload.metric
    experiment = running(primary=metric.model_dump(), guardrails=[], alpha=ALPHA, tuning_units=TUNING_UNITS)
    seen = set()
    for units in (30, 200, 1000, 20_000):
        for multiple in (-3, 0, 3):
            arms = []
            for effect in (multiple * metric.smallest_effect, 0.0):
                x, y = workload.draw(rng, np.full(units, effect))
                arms.append(Sums(units, float(x.sum()), float(x @ x), float(y.sum()), float(y @ y), float(x @ y)))
            found = int(verdicts(workload, (arms[0], arms[1])))
            named = {
                name: ArmData(units, {metric.key: sums}) for name, sums in zip(("short", "now"), arms, strict=True)
            }
            (result,) = assess(experiment, ExperimentData(named)).results
            assert result.verdict.kind is WORDS.get(found, VerdictKind.COLLECTING)
            seen.add(found)
    assert seen == {COLLECTING, BETTER, WORSE, NO_DIFFERENCE}
