"""Sums over units: all that the statistics need. A unit with many answers counts once, with the mean of its answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Values = float | Floats
"""A number, or one number for each of many experiments."""
Flags = npt.NDArray[np.bool_]


class Interval(NamedTuple):
    low: Values
    high: Values


class UnitTotals(NamedTuple):
    """One unit's answers that have a value of the metric."""

    answers: int
    total: float
    per_total: float = 0.0
    """Sum of the divisor, for a ratio."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over the units of an arm. x is a unit's mean; y, for a ratio, its mean of the divisor."""

    units: Values
    total: Values
    """Sum of x."""
    squares: Values
    """Sum of x²."""
    per_total: Values = 0.0
    """Sum of y."""
    per_squares: Values = 0.0
    """Sum of y²."""
    products: Values = 0.0
    """Sum of x·y."""

    @classmethod
    def of_units(cls, units: Iterable[UnitTotals]) -> Sums:
        """Add up units. Units without answers are left out."""
        means = [(unit.total / unit.answers, unit.per_total / unit.answers) for unit in units if unit.answers]
        x, y = np.array(means, dtype=np.float64).reshape(-1, 2).T
        return cls(len(means), float(x.sum()), float(x @ x), float(y.sum()), float(y @ y), float(x @ y))


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate whose squared standard error is `variance / units`."""

    units: Values
    value: Values
    variance: Values


def mean_of(sums: Sums) -> Estimate:
    """Return the mean over units, with the unbiased variance of one unit. Both are NaN without units."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.divide(sums.total, sums.units)
        variance = np.divide(sums.squares - sums.units * mean**2, np.subtract(sums.units, 1))
    return Estimate(sums.units, mean, np.maximum(variance, 0.0))


def ratio_of(sums: Sums) -> Estimate:
    """Return Σx / Σy with the variance of its linearization, (x - R·y) / mean(y): the delta method. NaN if Σy is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.divide(sums.total, sums.per_total)
        residuals = sums.squares - 2 * ratio * sums.products + ratio**2 * sums.per_squares
        divisor = np.divide(sums.per_total, sums.units)
        variance = np.divide(residuals, np.subtract(sums.units, 1) * divisor**2)
    return Estimate(sums.units, ratio, np.maximum(variance, 0.0))
