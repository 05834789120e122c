"""Comparisons: bounds of harm have the right side and the right strength for each kind of guardrail."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cloud_teacher.experiments.comparison import (
    MIN_UNITS,
    ArmData,
    Standing,
    check_guardrail,
    compare_primary,
    excludes,
    interval,
)
from cloud_teacher.experiments.statistics.sums import Sums
from shared.experiments.metrics import Direction, Guardrail, Metric, MetricKind
from tests.cloud_teacher.experiments.arm_data import agreement, data, rate
from tests.shared.experiments.fixtures import running

EXPERIMENT = running()
FALLBACK, SLOW, COST, FEEDBACK = EXPERIMENT.guardrails


def test_a_primary_comparison_has_its_numbers() -> None:
    found = data(400, primary=(0.83, 0.80))
    primary = compare_primary(EXPERIMENT, found.arm("short"), found.arm("now"))
    assert primary.units == 800
    assert primary.difference == pytest.approx(0.03)
    assert primary.low is not None
    assert primary.high is not None
    assert 0 < primary.low < 0.03 < primary.high
    assert primary.numbers()["control"] == pytest.approx(0.80)


def test_few_units_set_no_bounds_and_the_missing_ones_are_counted() -> None:
    few = ArmData(10, {"shadow_agreement": agreement(0.9, 10)})
    primary = compare_primary(EXPERIMENT, few, ArmData(0))
    assert (primary.low, primary.high, primary.control) == (None, None, None)
    assert primary.more_units == 2 * MIN_UNITS - 10


def test_about_so_many_more_units_bring_the_verdict() -> None:
    found = data(100, primary=(0.825, 0.80))
    more = compare_primary(EXPERIMENT, found.arm("short"), found.arm("now")).more_units
    assert more is not None
    enough = data((200 + round(more * 1.1)) // 2, primary=(0.825, 0.80))
    low = compare_primary(EXPERIMENT, enough.arm("short"), enough.arm("now")).low
    assert low is not None
    assert low > 0


def standing(guardrail: Guardrail, treatment: Sums, control: Sums) -> Standing:
    arms = (ArmData(int(sums.units), {guardrail.key: sums}) for sums in (treatment, control))
    return check_guardrail(EXPERIMENT, guardrail, *arms).standing


def test_a_rate_is_harmed_beyond_its_margin_only() -> None:
    assert standing(FALLBACK, rate(8, 400), rate(8, 400)) is Standing.SAFE
    assert standing(FALLBACK, rate(2, 100), rate(2, 100)) is Standing.UNDECIDED
    assert standing(FALLBACK, rate(60, 400), rate(8, 400)) is Standing.HARMED
    assert standing(FALLBACK, rate(8, 400), rate(60, 400)) is Standing.SAFE


def test_a_rate_that_should_be_high_is_harmed_when_it_falls() -> None:
    assert standing(FEEDBACK, rate(100, 400), rate(300, 400)) is Standing.HARMED
    assert standing(FEEDBACK, rate(300, 400), rate(100, 400)) is Standing.SAFE


@pytest.mark.parametrize(
    ("treatment", "expected"), [(1.0, Standing.SAFE), (1.09, Standing.UNDECIDED), (1.2, Standing.HARMED)]
)
def test_a_relative_margin_is_a_fraction_of_the_controls_value(treatment: float, expected: Standing) -> None:
    assert standing(COST, agreement(treatment, 200, seed=1), agreement(1.0, 200)) is expected
    # The same in another currency.
    scaled = [
        Sums(sums.units, sums.total * 50, sums.squares * 2500)
        for sums in (agreement(treatment, 200, seed=1), agreement(1.0, 200))
    ]
    assert standing(COST, *scaled) is expected


def test_a_relative_margin_of_a_mean_that_should_be_high() -> None:
    speed = Guardrail(name="speed", kind=MetricKind.MEAN, better=Direction.HIGHER, margin=0.1, relative=True)
    assert standing(speed, agreement(0.8, 200, seed=1), agreement(1.0, 200)) is Standing.HARMED
    assert standing(speed, agreement(1.0, 200, seed=1), agreement(1.0, 200)) is Standing.SAFE


def test_an_absolute_margin_of_a_mean() -> None:
    price = Guardrail(name="price", kind=MetricKind.MEAN, better=Direction.LOWER, margin=0.1)
    assert standing(price, agreement(5.2, 200, seed=1), agreement(5.0, 200)) is Standing.HARMED
    assert standing(price, agreement(5.0, 200, seed=1), agreement(5.0, 200)) is Standing.SAFE


@pytest.mark.parametrize("kind", list(MetricKind))
def test_a_value_is_excluded_when_the_interval_excludes_it(kind: MetricKind) -> None:
    rng = np.random.default_rng(8)
    per = "tokens" if kind is MetricKind.RATIO else None
    metric = Metric(name="number", kind=kind, better=Direction.HIGHER, per=per)
    for _ in range(20):
        units = rng.integers(30, 500, 2).astype(float)
        total = rng.uniform(0.1, 0.9, 2) * units
        pair = [
            Sums(n, t, t if kind is MetricKind.RATE else t * t / n * 1.3, n * 2, n * 5, t * 2.1)
            for n, t in zip(units, total, strict=True)
        ]
        low, high = interval(metric, *pair, alpha=0.05, tuning_units=1000)
        for value in (-0.1, 0.0, 0.1):
            inside = float(low) < value < float(high)
            assert bool(excludes(metric, pair[0], pair[1], value, alpha=0.05, tuning_units=1000)) == (not inside)
    assert math.isfinite(float(low))
