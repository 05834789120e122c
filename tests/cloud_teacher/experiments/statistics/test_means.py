"""Asymptotic confidence sequences: the formulas, their agreement with each other, and coverage at all looks together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cloud_teacher.experiments.statistics.means import (
    bound_in_errors,
    bounds,
    difference,
    interval,
    log_e_value,
    mixture_rho,
    units_needed,
    width_in_errors,
)
from cloud_teacher.experiments.statistics.sums import Estimate

ALPHA, TUNING = 0.05, 1000.0


def test_published_values() -> None:
    rho = math.sqrt((5.991465 + math.log(6.991465)) / 1000)
    assert mixture_rho(ALPHA, TUNING) == pytest.approx(rho, rel=1e-6)
    equation_9 = math.sqrt(2 * (400 * rho**2 + 1) / (400**2 * rho**2) * math.log(math.sqrt(400 * rho**2 + 1) / 0.05))
    assert float(width_in_errors(400, ALPHA, TUNING)) / math.sqrt(400) == pytest.approx(equation_9, rel=1e-6)


def test_the_interval_is_tightest_near_the_tuning_size() -> None:
    widths = {tuned: float(width_in_errors(1000, ALPHA, tuned)) for tuned in (100, 500, 1000, 2000, 10_000)}
    assert min(widths, key=lambda tuned: widths[tuned]) == 1000
    assert widths[1000] == pytest.approx(3.03, abs=0.01)


@pytest.mark.parametrize("units", [30, 400, 5000])
def test_the_e_value_reaches_its_limit_where_the_interval_ends(units: int) -> None:
    width = width_in_errors(units, ALPHA, TUNING)
    assert float(log_e_value(width, units, ALPHA, TUNING)) == pytest.approx(math.log(1 / ALPHA))


@pytest.mark.parametrize("units", [30, 400, 5000])
def test_a_one_sided_bound_is_closer_and_is_a_little_wider_than_its_mixture(units: int) -> None:
    bound = float(bound_in_errors(units, ALPHA, TUNING))
    assert bound < float(width_in_errors(units, ALPHA, TUNING))
    information = units * mixture_rho(2 * ALPHA, TUNING) ** 2
    at_bound = bound * math.sqrt(information / (information + 1))
    mixture = 2 / math.sqrt(information + 1) * math.exp(at_bound**2 / 2) * stats.norm.cdf(at_bound)
    assert 1 / ALPHA <= mixture < 1.2 / ALPHA


def test_a_difference_has_the_error_of_both_arms() -> None:
    found = difference(Estimate(100, 5.0, 4.0), Estimate(300, 3.0, 9.0))
    assert (found.units, found.value) == (400, 2.0)
    assert float(found.variance) / 400 == pytest.approx(4 / 100 + 9 / 300)
    scaled = difference(Estimate(100, 5.0, 4.0), Estimate(300, 3.0, 9.0), scale=1.1)
    assert scaled.value == pytest.approx(1.7)
    assert float(scaled.variance) / 400 == pytest.approx(4 / 100 + 1.21 * 9 / 300)


def test_the_interval_is_unbounded_while_nothing_varies() -> None:
    low, high = interval(difference(Estimate(50, 1.0, 0.0), Estimate(50, 0.0, 0.0)), alpha=ALPHA, tuning_units=TUNING)
    assert (float(low), float(high)) == (-math.inf, math.inf)


def test_needed_units_give_the_wanted_width() -> None:
    needed = units_needed(2.0, 0.1, alpha=ALPHA, tuning_units=TUNING)
    low, high = interval(Estimate(needed, 0.0, 2.0), alpha=ALPHA, tuning_units=TUNING)
    assert float(high) - float(low) == pytest.approx(0.2, rel=0.01)
    assert units_needed(2.0, 0.0, alpha=ALPHA, tuning_units=TUNING) == math.inf


def test_intervals_and_bounds_cover_the_mean_at_all_looks_together() -> None:
    rng = np.random.default_rng(7)
    runs, looks, step = 1000, 120, 25
    units = np.asarray(np.arange(1, looks + 1) * step, np.float64)
    values = rng.exponential(1.0, (runs, looks, step))
    sums, squares = values.sum(axis=2).cumsum(axis=1), (values**2).sum(axis=2).cumsum(axis=1)
    estimate = Estimate(units, sums / units, (squares - sums**2 / units) / (units - 1))
    low, high = interval(estimate, alpha=ALPHA, tuning_units=TUNING)
    missed = ((np.asarray(low) > 1) | (np.asarray(high) < 1)).any(axis=1).mean()
    assert missed <= 0.065
    below, above = bounds(estimate, alpha_low=0.1, alpha_high=ALPHA, tuning_units=TUNING)
    assert (np.asarray(below) > 1).any(axis=1).mean() <= 0.12
    assert (np.asarray(above) < 1).any(axis=1).mean() <= 0.065
