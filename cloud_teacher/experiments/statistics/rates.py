"""Beta-binomial confidence sequences for rates and their differences. They are exact: valid for any rate and sample size.

For one arm with total S of N units (each from 0 to 1) and a rate p, the mixture over Beta(k·p, k·(1-p))

    M(p) = B(k·p + S, k·(1-p) + N - S) / B(k·p, k·(1-p)) / (p^S · (1-p)^(N-S))

is a nonnegative supermartingale that starts at 1 if p is the true mean, so it ever reaches 1 / alpha with probability at most
alpha (Ville). Source: Howard, Ramdas, McAuliffe and Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences,
arXiv 1810.08240. It holds for means of units that lie anywhere from 0 to 1, because x → (q/p)^x · ((1-q)/(1-p))^(1-x) is convex:
its mean is at most that of a Bernoulli variable, which is 1.

For a difference d of two arms, the product of both arms' supermartingales is one for each pair (p + d, p). The minimum over p is
an e-process against all pairs with that difference: the difference is excluded when the minimum reaches 1 / alpha.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from cloud_teacher.experiments.statistics.means import smallest_units
from cloud_teacher.experiments.statistics.sums import Flags, Floats, Interval, Sums, Values

EDGE = 1e-9
"""Distance of the smallest and largest rate considered from 0 and 1."""
GOLDEN = (math.sqrt(5) - 1) / 2
SEARCH_STEPS = 32
"""Golden-section steps for the minimum over p; the range shrinks by 0.618 at each."""
MAX_STEPS = 60
PRECISION = 1e-7
"""Precision of the search for an interval's ends, in the square root of the logarithm of the e-value."""


@dataclass(frozen=True, slots=True)
class _Arm:
    """The terms of log M(p) that do not depend on p are computed once."""

    successes: Floats
    failures: Floats
    concentration: float
    constant: Floats

    @classmethod
    def of(cls, sums: Sums, concentration: float) -> _Arm:
        units, successes = np.asarray(sums.units, np.float64), np.asarray(sums.total, np.float64)
        constant = special.gammaln(concentration) - special.gammaln(concentration + units)
        return cls(successes, np.maximum(units - successes, 0.0), concentration, constant)

    @property
    def units(self) -> Floats:
        return self.successes + self.failures

    def only(self, chosen: Flags) -> _Arm:
        """Return some of many experiments."""
        parts = (np.broadcast_to(part, chosen.shape)[chosen] for part in (self.successes, self.failures, self.constant))
        successes, failures, constant = parts
        return _Arm(successes, failures, self.concentration, constant)

    def log_mixture(self, rate: Floats) -> Floats:
        """Return log M(rate)."""
        a, b = self.concentration * rate, self.concentration * (1 - rate)
        mixture: Floats = special.gammaln(a + self.successes) - special.gammaln(a)
        mixture += special.gammaln(b + self.failures) - special.gammaln(b)
        likelihood: Floats = special.xlogy(self.successes, rate) + special.xlog1py(self.failures, -rate)
        return self.constant + mixture - likelihood


def concentration_for(alpha: float, units: float, *, arms: int) -> float:
    """Return the k at which the set of `arms` rates is tightest when each arm has this many units.

    With u = units / k, the squared width is in proportion to (1 + 1/u) · (log(1 / alpha) + arms/2 · log(1 + u)). Its minimum is
    at u = 2/arms · log(1 / alpha) + log(1 + u), which the iteration solves.
    """
    return units / _tuned_information(alpha, arms)


def _tuned_information(alpha: float, arms: int) -> float:
    information = 1.0
    for _ in range(50):
        information = -2 / arms * math.log(alpha) + math.log1p(information)
    return information


def rate_interval(sums: Sums, *, alpha: float, tuning_units: float) -> Interval:
    """Return the interval of one arm's rate; from 0 to 1 without units. `tuning_units` are those of the arm."""
    arm = _Arm.of(sums, concentration_for(alpha, tuning_units, arms=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(np.equal(sums.units, 0), 0.5, np.divide(sums.total, sums.units))
    rate = np.clip(rate, EDGE, 1 - EDGE)
    limit = -math.log(alpha)
    low, high = _ends(arm.log_mixture, rate, limit, EDGE, 1 - EDGE)
    return Interval(np.where(low <= 2 * EDGE, 0.0, low), np.where(high >= 1 - 2 * EDGE, 1.0, high))


def log_e_value(treatment: Sums, control: Sums, difference: Values, *, alpha: float, tuning_units: float) -> Floats:
    """Return the logarithm of the e-value against rates that differ by `difference`, treatment - control.

    It reaches log(1 / alpha) when `difference_interval` excludes the difference. `tuning_units` are those of both arms together.
    """
    k = concentration_for(alpha, tuning_units / 2, arms=2)
    return _log_e_value(_Arm.of(treatment, k), _Arm.of(control, k), np.asarray(difference, np.float64))


def _log_e_value(treatment: _Arm, control: _Arm, difference: Floats) -> Floats:
    """Minimize over the control's rate by golden section; the product is unimodal in it."""

    def product(rate: Floats) -> Floats:
        moved = np.clip(rate + difference, EDGE, 1 - EDGE)
        return treatment.log_mixture(moved) + control.log_mixture(rate)

    shape = np.broadcast_shapes(treatment.successes.shape, control.successes.shape, difference.shape)
    low = np.broadcast_to(np.clip(-difference, EDGE, 1 - EDGE), shape)
    high = np.broadcast_to(np.clip(1 - difference, EDGE, 1 - EDGE), shape)
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left, at_right = product(left), product(right)
    for _ in range(SEARCH_STEPS):
        leftward = at_left < at_right
        low, high = np.where(leftward, low, left), np.where(leftward, right, high)
        new = np.where(leftward, high - GOLDEN * (high - low), low + GOLDEN * (high - low))
        at_new = product(new)
        left, right = np.where(leftward, new, right), np.where(leftward, left, new)
        at_left, at_right = np.where(leftward, at_new, at_right), np.where(leftward, at_left, at_new)
    return np.minimum(at_left, at_right)


def excludes(treatment: Sums, control: Sums, difference: Values, *, alpha: float, tuning_units: float) -> Flags:
    """Return True where the interval excludes a difference."""
    k = concentration_for(alpha, tuning_units / 2, arms=2)
    arms = _Arm.of(treatment, k), _Arm.of(control, k)
    return _excludes(*arms, np.asarray(difference, np.float64), -math.log(alpha))


def _excludes(treatment: _Arm, control: _Arm, difference: Floats, limit: float) -> Flags:
    """Search for the minimum only where the value at the pooled rate, near it, does not settle the question."""
    pooled = (treatment.successes + control.successes - treatment.units * difference) / np.maximum(
        treatment.units + control.units, 1
    )
    rate = np.clip(pooled, np.clip(-difference, EDGE, 1 - EDGE), np.clip(1 - difference, EDGE, 1 - EDGE))
    moved = np.clip(rate + difference, EDGE, 1 - EDGE)
    found = np.asarray(treatment.log_mixture(moved) + control.log_mixture(rate) >= limit)
    if found.any():
        differences = np.broadcast_to(difference, found.shape)[found]
        found[found] = _log_e_value(treatment.only(found), control.only(found), differences) >= limit
    return found


def difference_interval(treatment: Sums, control: Sums, *, alpha: float, tuning_units: float) -> Interval:
    """Return the interval of the difference of two rates, treatment - control; from -1 to 1 if an arm has no units."""
    k = concentration_for(alpha, tuning_units / 2, arms=2)
    arms = _Arm.of(treatment, k), _Arm.of(control, k)
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = np.divide(treatment.total, treatment.units) - np.divide(control.total, control.units)
    estimate = np.nan_to_num(estimate)
    limit = -math.log(alpha)
    low, high = _ends(lambda tried: _log_e_value(*arms, tried), estimate, limit, -1 + EDGE, 1 - EDGE)
    return Interval(np.where(low <= -1 + 2 * EDGE, -1.0, low), np.where(high >= 1 - 2 * EDGE, 1.0, high))


def _ends(log_e: Callable[[Floats], Floats], inside: Values, limit: float, lowest: float, highest: float) -> Interval:
    """Return the two ends around `inside` at which `log_e` reaches the limit, or the outermost values if it does not.

    log_e is about quadratic, so its square root above the value inside is about linear: a false-position search with the Illinois
    rule takes few steps.
    """
    inner = np.stack([inside, inside]).astype(np.float64)
    outermost = np.empty_like(inner)
    outermost[0], outermost[1] = lowest, highest
    base = np.minimum(log_e(inner), limit - 1e-3)
    target = np.sqrt(limit - base)

    def excess(tried: Floats) -> Floats:
        return np.asarray(np.sqrt(np.maximum(log_e(tried) - base, 0.0)) - target)

    outer = found = outermost
    at_inner, at_outer = -target, excess(outer)
    open_ended = at_outer <= 0
    was_out = np.zeros(inner.shape, np.bool_)
    for step in range(MAX_STEPS):
        fraction = np.divide(at_inner, at_inner - at_outer, out=np.full_like(inner, 0.5), where=at_inner != at_outer)
        found = np.where(open_ended, outermost, inner + fraction * (outer - inner))
        at_found = excess(found)
        if np.all(open_ended | (np.abs(at_found) < PRECISION)):
            break
        out = at_found > 0
        # An end that stays twice in a row is weighted less, so that both ends move.
        stays = 0.5 if step else 1.0
        at_inner = np.where(out, at_inner * np.where(was_out, stays, 1.0), at_found)
        at_outer = np.where(out, at_found, at_outer * np.where(was_out, 1.0, stays))
        inner, outer = np.where(out, inner, found), np.where(out, found, outer)
        was_out = out
    return Interval(found[0], found[1])


def units_needed(variance: float, width: float, *, alpha: float, tuning_units: float) -> float:
    """Return about how many units both arms need together for an interval of half this width.

    `variance` is that of the difference's estimate for both arms' units together. The normal approximation of the mixture of two
    rates, with u units per unit of concentration, has the squared width 2 · (1 + 1/u) · (log(1 / alpha) + log(1 + u)).
    """
    tuned = _tuned_information(alpha, 2)

    def reached(units: float) -> bool:
        information = tuned * units / tuning_units
        squared = 2 * (1 + 1 / information) * (math.log1p(information) - math.log(alpha))
        return squared * variance / units <= width**2

    if width <= 0 or not math.isfinite(variance):
        return math.inf
    return smallest_units(reached)
