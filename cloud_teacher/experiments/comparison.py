"""Comparison of a treatment with the control on one metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from cloud_teacher.experiments.statistics import means, rates
from cloud_teacher.experiments.statistics.sums import Estimate, Flags, Interval, Sums, Values, mean_of, ratio_of
from shared.experiments.definition import Experiment
from shared.experiments.metrics import Guardrail, Metric, MetricKind

MIN_UNITS = 25
"""Units that each arm needs before its metrics are compared. The intervals of means are asymptotic."""

Number = float | int | str | None


@dataclass(frozen=True, slots=True)
class ArmData:
    """Exposed units of an arm, and its sums by `Metric.key`. A metric without answers may be missing."""

    units: int
    sums: Mapping[str, Sums] = field(default_factory=dict)

    def sums_of(self, metric: Metric) -> Sums:
        return self.sums.get(metric.key, Sums(0, 0.0, 0.0))


class Standing(StrEnum):
    """State of a guardrail."""

    SAFE = "safe"
    """Shown not to be worse by more than its margin."""
    HARMED = "harmed"
    """Shown to be worse by more than its margin."""
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Treatment less control. `low` and `high` bound the difference; None where the data sets no bound."""

    metric: str
    units: int
    treatment: float | None
    control: float | None
    low: float | None
    high: float | None
    more_units: int | None
    """About how many more units of both arms decide it; None if that cannot be estimated."""

    @property
    def difference(self) -> float | None:
        return None if self.treatment is None or self.control is None else self.treatment - self.control

    def numbers(self) -> dict[str, Number]:
        """Return the comparison as it is logged."""
        return {
            "metric": self.metric,
            "units": self.units,
            "treatment": self.treatment,
            "control": self.control,
            "difference": self.difference,
            "low": self.low,
            "high": self.high,
            "more_units": self.more_units,
        }


@dataclass(frozen=True, slots=True)
class GuardrailCheck:
    """A guardrail's comparison. `harm` is the worsening beyond the margin: above 0 is harmful, and its bounds decide."""

    guardrail: Guardrail
    comparison: Comparison
    harm_low: float | None
    harm_high: float | None

    @property
    def standing(self) -> Standing:
        if self.harm_low is not None and self.harm_low > 0:
            return Standing.HARMED
        return Standing.SAFE if self.harm_high is not None and self.harm_high < 0 else Standing.UNDECIDED

    def numbers(self) -> dict[str, Number]:
        return self.comparison.numbers() | {
            "margin": self.guardrail.margin,
            "harm_low": self.harm_low,
            "harm_high": self.harm_high,
            "standing": self.standing.value,
        }


def estimate_of(metric: Metric, sums: Sums) -> Estimate:
    return ratio_of(sums) if metric.kind is MetricKind.RATIO else mean_of(sums)


def excludes(
    metric: Metric, treatment: Sums, control: Sums, value: float, *, alpha: float, tuning_units: float
) -> Flags:
    """Return True if the interval of the difference excludes a value. Equal to looking at `interval`, and faster for rates."""
    if metric.kind is MetricKind.RATE:
        return rates.excludes(treatment, control, value, alpha=alpha, tuning_units=tuning_units)
    estimate = means.difference(estimate_of(metric, treatment), estimate_of(metric, control))
    errors = (estimate.value - value) / means.standard_error(estimate)
    return np.asarray(means.log_e_value(errors, estimate.units, alpha, tuning_units) >= -math.log(alpha))


def interval(metric: Metric, treatment: Sums, control: Sums, *, alpha: float, tuning_units: float) -> Interval:
    """Return the interval of the difference, treatment - control."""
    if metric.kind is MetricKind.RATE:
        return rates.difference_interval(treatment, control, alpha=alpha, tuning_units=tuning_units)
    estimate = means.difference(estimate_of(metric, treatment), estimate_of(metric, control))
    return means.interval(estimate, alpha=alpha, tuning_units=tuning_units)


def compare_primary(experiment: Experiment, treatment: ArmData, control: ArmData) -> Comparison:
    """Compare on the primary metric, with the experiment's alpha shared by its treatments."""
    metric = experiment.primary
    alpha = experiment.alpha / len(experiment.treatments)
    pair = treatment.sums_of(metric), control.sums_of(metric)
    if not _enough(*pair):
        return _comparison(metric, *pair, Interval(-np.inf, np.inf), _missing(*pair))
    found = interval(metric, *pair, alpha=alpha, tuning_units=experiment.tuning_units)
    effect = abs(float(estimate_of(metric, pair[0]).value - estimate_of(metric, pair[1]).value))
    # The verdict comes when the interval excludes 0, or when it lies within the smallest effect: whichever is closer.
    width = max(effect, metric.smallest_effect - effect)
    return _comparison(metric, *pair, found, _more_units(experiment, metric, pair, width, alpha))


def check_guardrail(
    experiment: Experiment, guardrail: Guardrail, treatment: ArmData, control: ArmData
) -> GuardrailCheck:
    """Compare on a guardrail.

    Harm on any guardrail ends the rollout, so all guardrails and treatments share alpha. Safety must be shown on every one of
    them, so each has all of it (an intersection-union test).
    """
    pair = treatment.sums_of(guardrail), control.sums_of(guardrail)
    if not _enough(*pair):
        nothing = Interval(-np.inf, np.inf)
        return GuardrailCheck(guardrail, _comparison(guardrail, *pair, nothing, _missing(*pair)), None, None)
    treatments = len(experiment.treatments)
    alpha_harm = experiment.alpha / (treatments * len(experiment.guardrails))
    alpha_safe = experiment.alpha / treatments
    sign = guardrail.better.sign
    if guardrail.kind is MetricKind.RATE:
        loose = interval(guardrail, *pair, alpha=alpha_safe, tuning_units=experiment.tuning_units)
        strict = (
            loose
            if alpha_harm == alpha_safe
            else interval(guardrail, *pair, alpha=alpha_harm, tuning_units=experiment.tuning_units)
        )
        harm = _oriented(strict, loose, sign)
        harm = Interval(harm.low - guardrail.margin, harm.high - guardrail.margin)
        shown = loose
    else:
        estimates = estimate_of(guardrail, pair[0]), estimate_of(guardrail, pair[1])
        # A relative margin moves into the contrast: treatment - (1 ± margin) · control.
        scale = 1 - sign * guardrail.margin if guardrail.relative else 1.0
        beyond = 0.0 if guardrail.relative else guardrail.margin
        contrast = means.difference(*estimates, scale=scale)
        harm_of = Estimate(contrast.units, -sign * contrast.value - beyond, contrast.variance)
        harm = means.bounds(harm_of, alpha_low=alpha_harm, alpha_high=alpha_safe, tuning_units=experiment.tuning_units)
        shown = interval(guardrail, *pair, alpha=alpha_safe, tuning_units=experiment.tuning_units)
    margin = guardrail.margin * (abs(float(estimate_of(guardrail, pair[1]).value)) if guardrail.relative else 1.0)
    effect = float(estimate_of(guardrail, pair[0]).value - estimate_of(guardrail, pair[1]).value)
    more = _more_units(experiment, guardrail, pair, abs(margin + sign * effect), alpha_safe)
    return GuardrailCheck(guardrail, _comparison(guardrail, *pair, shown, more), _finite(harm.low), _finite(harm.high))


def _oriented(strict: Interval, loose: Interval, sign: int) -> Interval:
    """Return the bounds of harm: the strict one from below, the loose one from above."""
    return Interval(-strict.high, -loose.low) if sign > 0 else Interval(strict.low, loose.high)


def _enough(treatment: Sums, control: Sums) -> bool:
    return bool(min(treatment.units, control.units) >= MIN_UNITS)


def _missing(treatment: Sums, control: Sums) -> int:
    """Return about how many units are missing until the arms can be compared."""
    return 2 * MIN_UNITS - int(min(treatment.units, MIN_UNITS) + min(control.units, MIN_UNITS))


def _more_units(
    experiment: Experiment, metric: Metric, pair: tuple[Sums, Sums], width: float, alpha: float
) -> int | None:
    estimate = means.difference(estimate_of(metric, pair[0]), estimate_of(metric, pair[1]))
    family = rates if metric.kind is MetricKind.RATE else means
    needed = family.units_needed(float(estimate.variance), width, alpha=alpha, tuning_units=experiment.tuning_units)
    return max(1, round(needed - float(estimate.units))) if math.isfinite(needed) else None


def _comparison(metric: Metric, treatment: Sums, control: Sums, bounds: Interval, more: int | None) -> Comparison:
    return Comparison(
        metric=metric.key,
        units=int(treatment.units + control.units),
        treatment=_finite(estimate_of(metric, treatment).value),
        control=_finite(estimate_of(metric, control).value),
        low=_finite(bounds.low),
        high=_finite(bounds.high),
        more_units=more,
    )


def _finite(value: Values) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
