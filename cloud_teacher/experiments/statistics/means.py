"""Asymptotic confidence sequences for means and their differences.

A confidence sequence is a sequence of intervals that all cover the truth, at every sample size together, with probability
1 - alpha: so it may be read after every outcome. Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, Time-uniform central
limit theory and asymptotic confidence sequences, arXiv 2103.06476 (equation numbers of version 7).

The normal mixture behind them has one parameter, rho. Every fixed value is valid; it decides at which sample size the intervals
are tightest, and must not depend on the data: so it is derived from a sample size that is fixed in advance.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cloud_teacher.experiments.statistics.sums import Estimate, Floats, Interval, Values

MAX_UNITS = 10**12
"""Sample size at which the search for a needed one ends."""


def mixture_rho(alpha: float, tuning_units: float) -> float:
    """Return the rho of the intervals that are tightest at a sample size (equation 161)."""
    log = -2 * math.log(alpha)
    return math.sqrt((log + math.log(log + 1)) / tuning_units)


def width_in_errors(units: Values, alpha: float, tuning_units: float) -> Floats:
    """Return half the width of the two-sided interval, in standard errors of the estimate.

    Equation 9 divided by sigma / sqrt(t): sqrt(2 (t rho² + 1) / (t rho²) · log(sqrt(t rho² + 1) / alpha)).
    """
    information = np.multiply(units, mixture_rho(alpha, tuning_units) ** 2)
    with np.errstate(divide="ignore"):
        width: Floats = np.sqrt(2 * (1 + 1 / information) * np.log(np.sqrt(information + 1) / alpha))
    return width


def bound_in_errors(units: Values, alpha: float, tuning_units: float) -> Floats:
    """Return the distance of a one-sided bound from the estimate, in standard errors of the estimate.

    Equation 134 divided by sigma / sqrt(t): sqrt(2 (t rho² + 1) / (t rho²) · log(1 + sqrt(t rho² + 1) / (2 alpha))). It is the
    closed form, a little wider than the exact one, of a mixture over the positive half of the normal.
    """
    information = np.multiply(units, mixture_rho(2 * alpha, tuning_units) ** 2)
    with np.errstate(divide="ignore"):
        distance: Floats = np.sqrt(2 * (1 + 1 / information) * np.log(1 + np.sqrt(information + 1) / (2 * alpha)))
    return distance


def log_e_value(errors: Values, units: Values, alpha: float, tuning_units: float) -> Floats:
    """Return the logarithm of the e-value against a mean that is `errors` standard errors from the estimate (equation 155).

    It reaches log(1 / alpha) when the two-sided interval excludes that mean. 1 / e is a p-value that may be read at any time.
    """
    information = np.multiply(units, mixture_rho(alpha, tuning_units) ** 2)
    log_e: Floats = information * np.square(errors) / (2 * (information + 1)) - np.log(information + 1) / 2
    return log_e


def difference(treatment: Estimate, control: Estimate, *, scale: float = 1.0) -> Estimate:
    """Return treatment - scale · control for independent arms. `variance` is for both arms' units together."""
    with np.errstate(divide="ignore", invalid="ignore"):
        squared_error = np.divide(treatment.variance, treatment.units) + scale**2 * np.divide(
            control.variance, control.units
        )
    units = np.add(treatment.units, control.units)
    return Estimate(units, treatment.value - scale * control.value, units * squared_error)


def interval(estimate: Estimate, *, alpha: float, tuning_units: float) -> Interval:
    """Return the two-sided interval. It is unbounded while nothing varies: then the data does not show how large errors are."""
    width = standard_error(estimate) * width_in_errors(estimate.units, alpha, tuning_units)
    return Interval(np.subtract(estimate.value, width), np.add(estimate.value, width))


def bounds(estimate: Estimate, *, alpha_low: float, alpha_high: float, tuning_units: float) -> Interval:
    """Return two one-sided bounds, each with its own error probability."""
    error = standard_error(estimate)
    return Interval(
        np.subtract(estimate.value, error * bound_in_errors(estimate.units, alpha_low, tuning_units)),
        np.add(estimate.value, error * bound_in_errors(estimate.units, alpha_high, tuning_units)),
    )


def standard_error(estimate: Estimate) -> Floats:
    """Return the standard error; infinite if it cannot be estimated."""
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.sqrt(np.divide(estimate.variance, estimate.units))
    return np.where(error > 0, error, np.inf)


def units_needed(variance: float, width: float, *, alpha: float, tuning_units: float) -> float:
    """Return the sample size at which half the width of the two-sided interval is at most `width`."""

    def reached(units: float) -> bool:
        return float(width_in_errors(units, alpha, tuning_units)) * math.sqrt(variance / units) <= width

    if width <= 0 or not math.isfinite(variance):
        return math.inf
    return smallest_units(reached)


def smallest_units(reached: Callable[[float], bool]) -> float:
    """Return the smallest sample size at which `reached` holds, to one in a hundred; infinite if there is none."""
    high = 2.0
    while not reached(high):
        high *= 2
        if high > MAX_UNITS:
            return math.inf
    low = high / 2
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
