"""Beta-binomial confidence sequences: the minimum is found, interval and e-value agree, and coverage holds at all looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from cloud_teacher.experiments.statistics.rates import (
    concentration_for,
    difference_interval,
    excludes,
    log_e_value,
    rate_interval,
    units_needed,
)
from cloud_teacher.experiments.statistics.sums import Sums

ALPHA, TUNING = 0.05, 1000.0
LIMIT = math.log(1 / ALPHA)


def rate(total: float, units: float) -> Sums:
    return Sums(units, total, total)


def log_mixture(sums: Sums, p: np.ndarray, k: float) -> np.ndarray:
    """log M(p), straight from its definition."""
    failures = np.subtract(sums.units, sums.total)
    beta = special.betaln(k * p + sums.total, k * (1 - p) + failures) - special.betaln(k * p, k * (1 - p))
    return np.asarray(beta - special.xlogy(sums.total, p) - special.xlog1py(failures, -p))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 600),
    st.integers(1, 600),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(-0.9, 0.9),
)
def test_the_e_value_is_the_minimum_over_the_controls_rate(n: int, m: int, p: float, q: float, d: float) -> None:
    treatment, control = rate(round(p * n), n), rate(round(q * m), m)
    k = concentration_for(ALPHA, TUNING / 2, arms=2)
    grid = np.linspace(max(1e-9, 1e-9 - d), min(1 - 1e-9, 1 - 1e-9 - d), 4001)
    by_grid = (log_mixture(treatment, grid + d, k) + log_mixture(control, grid, k)).min()
    found = float(log_e_value(treatment, control, d, alpha=ALPHA, tuning_units=TUNING))
    assert found <= by_grid + 1e-4 * max(1.0, abs(by_grid))


@pytest.mark.parametrize(
    ("treatment", "control"),
    [((60, 200), (40, 200)), ((0, 300), (9, 310)), ((0, 50), (0, 50)), ((50, 50), (10, 60)), ((12.5, 40), (20.25, 45))],
)
def test_the_interval_ends_where_the_e_value_reaches_its_limit(
    treatment: tuple[float, float], control: tuple[float, float]
) -> None:
    pair = rate(*treatment), rate(*control)
    low, high = difference_interval(*pair, alpha=ALPHA, tuning_units=TUNING)
    assert -1 <= low < treatment[0] / treatment[1] - control[0] / control[1] < high <= 1
    for end in (float(low), float(high)):
        if abs(end) < 1:
            reached = float(log_e_value(*pair, end, alpha=ALPHA, tuning_units=TUNING))
            assert reached == pytest.approx(LIMIT, abs=1e-3)
    for value in (-0.2, -0.05, 0.0, 0.05, 0.2):
        excluded = bool(excludes(*pair, value, alpha=ALPHA, tuning_units=TUNING))
        assert excluded == (not float(low) < value < float(high))


def test_many_experiments_at_once_equal_one_at_a_time() -> None:
    totals, others = np.array([3.0, 40.0, 80.0]), np.array([10.0, 41.0, 20.0])
    together = excludes(Sums(100.0, totals, totals), Sums(90.0, others, others), 0.0, alpha=ALPHA, tuning_units=TUNING)
    alone = [
        bool(excludes(rate(one, 100), rate(two, 90), 0.0, alpha=ALPHA, tuning_units=TUNING))
        for one, two in zip(totals.tolist(), others.tolist(), strict=True)
    ]
    assert together.tolist() == alone
    assert alone == [False, False, True]


def test_without_units_a_rate_can_be_anything() -> None:
    assert [float(end) for end in rate_interval(rate(0, 0), alpha=ALPHA, tuning_units=TUNING)] == [0.0, 1.0]
    low, high = difference_interval(rate(0, 0), rate(0, 0), alpha=ALPHA, tuning_units=TUNING)
    assert (float(low), float(high)) == (-1.0, 1.0)


def test_rates_of_nothing_and_everything_reach_the_ends() -> None:
    low, high = rate_interval(rate(0, 200), alpha=ALPHA, tuning_units=500)
    assert float(low) == 0.0
    assert float(high) < 0.04
    low, high = rate_interval(rate(200, 200), alpha=ALPHA, tuning_units=500)
    assert float(low) > 0.96
    assert float(high) == 1.0


@pytest.mark.parametrize("p", [0.01, 0.3])
def test_intervals_cover_the_rate_at_all_looks_together(p: float) -> None:
    rng = np.random.default_rng(11)
    looks, step = 60, 25
    totals = rng.binomial(step, p, (1000, looks)).cumsum(axis=1).astype(float)
    units = np.asarray(np.arange(1, looks + 1) * step, np.float64)
    low, high = rate_interval(Sums(units, totals, totals), alpha=ALPHA, tuning_units=500)
    missed = (np.asarray(low) > p) | (np.asarray(high) < p)
    assert missed.any(axis=1).mean() <= ALPHA


def test_means_of_many_answers_are_covered_too() -> None:
    rng = np.random.default_rng(12)
    looks, step = 40, 25
    both = [rng.beta(0.4, 1.6, (500, looks, step)).sum(axis=2).cumsum(axis=1) for _ in range(2)]
    wrong = np.zeros(500, np.bool_)
    for look in range(looks):
        units = (look + 1) * float(step)
        arms = [Sums(units, totals[:, look], totals[:, look]) for totals in both]
        wrong |= excludes(arms[0], arms[1], 0.0, alpha=ALPHA, tuning_units=TUNING)
    assert wrong.mean() <= ALPHA


def test_needed_units_give_about_the_wanted_width() -> None:
    needed = units_needed(4 * 0.25, 0.08, alpha=ALPHA, tuning_units=TUNING)
    half = needed / 2
    low, high = difference_interval(rate(half / 2, half), rate(half / 2, half), alpha=ALPHA, tuning_units=TUNING)
    assert (float(high) - float(low)) / 2 == pytest.approx(0.08, rel=0.05)
