"""Sums over units: the estimates equal those of numpy on the units' means."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cloud_teacher.experiments.statistics.sums import Sums, UnitTotals, mean_of, ratio_of


def test_a_unit_with_many_answers_counts_once() -> None:
    units = [UnitTotals(1, 5.0), UnitTotals(100, 100.0), UnitTotals(2, 6.0), UnitTotals(0, 0.0)]
    estimate = mean_of(Sums.of_units(units))
    assert estimate.units == 3
    assert estimate.value == pytest.approx(3.0)
    assert estimate.variance == pytest.approx(np.var([5.0, 1.0, 3.0], ddof=1))


def test_a_ratio_has_the_variance_of_the_delta_method() -> None:
    rng = np.random.default_rng(3)
    tokens = rng.integers(20, 200, 400).astype(float)
    cost = tokens * rng.uniform(0.5, 1.5, 400)
    estimate = ratio_of(Sums.of_units(UnitTotals(1, x, y) for x, y in zip(cost, tokens, strict=True)))
    assert estimate.value == pytest.approx(cost.sum() / tokens.sum())
    resampled = rng.integers(0, 400, (4000, 400))
    ratios = cost[resampled].sum(axis=1) / tokens[resampled].sum(axis=1)
    assert math.sqrt(float(estimate.variance) / 400) == pytest.approx(float(ratios.std()), rel=0.05)


def test_without_units_there_is_no_estimate() -> None:
    empty = Sums.of_units([])
    assert (empty.units, empty.total) == (0, 0.0)
    assert math.isnan(float(mean_of(empty).value))
    assert math.isnan(float(ratio_of(empty).value))


def test_arrays_are_many_experiments() -> None:
    both = mean_of(Sums(np.array([2.0, 4.0]), np.array([3.0, 8.0]), np.array([5.0, 16.0])))
    assert np.asarray(both.value).tolist() == [1.5, 2.0]
    assert np.asarray(both.variance).tolist() == [0.5, 0.0]
