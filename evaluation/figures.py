"""Figures of benchmarks, and the statistics that they are made of."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class NotMeasured(Exception):
    """A figure could not be measured. It is left out; no other value takes its place."""


@dataclass(frozen=True)
class Figure:
    """One figure. `at_most` or `at_least` is its target; a figure without a target is only reported."""

    name: str
    value: float
    how: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def target(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    @property
    def met(self) -> bool | None:
        """None if the figure has no target."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


@dataclass(frozen=True)
class Measurement:
    """Figures, and by other names the medians that they were made of."""

    figures: Sequence[Figure]
    raw: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Measurement) -> Measurement:
        return Measurement([*self.figures, *other.figures], {**self.raw, **other.raw})


def median(values: Sequence[float]) -> float:
    """Raise NotMeasured if there are no values, or if one of them is not finite."""
    return statistics.median(_finite(values))


def p95(values: Sequence[float]) -> float:
    return quantile(values, 0.95)


def quantile(values: Sequence[float], fraction: float) -> float:
    """Interpolate linearly between the two nearest values (numpy's default). Raise NotMeasured as `median` does."""
    ordered = sorted(_finite(values))
    at = fraction * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def ratio(above: float, below: float) -> float:
    """Raise NotMeasured if the divisor is not positive."""
    if below <= 0:
        raise NotMeasured(f"cannot divide {above:g} by {below:g}")
    return above / below


def _finite(values: Sequence[float]) -> Sequence[float]:
    if not values:
        raise NotMeasured("there are no values to take the median or a percentile of")
    if not all(math.isfinite(value) for value in values):
        raise NotMeasured(f"not all values are finite: {list(values)}")
    return values
