"""What was measured, what was asked for, and the statistics between."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


class NotMeasured(Exception):
    """A figure cannot be had. There is never a made-up one in its place."""


@dataclass(frozen=True)
class Figure:
    """One figure. `at_most` and `at_least` are what was asked for; without either it is only reported."""

    name: str
    value: float
    how: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def asked(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return "" if self.at_least is None else f"≥ {self.at_least:g}"

    @property
    def met(self) -> bool | None:
        """None where nothing was asked."""
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least


def median(values: Sequence[float]) -> float:
    """Raises NotMeasured where there are no values, or some that are no numbers."""
    return statistics.median(_sound(values))


def p95(values: Sequence[float]) -> float:
    return quantile(values, 0.95)


def quantile(values: Sequence[float], share: float) -> float:
    """Linear between the two nearest values (numpy's default). Raises NotMeasured as `median` does."""
    ordered = sorted(_sound(values))
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def ratio(above: float, below: float) -> float:
    """Raises NotMeasured where there is nothing to divide by."""
    if below <= 0:
        raise NotMeasured(f"{above:g} over {below:g} is no ratio")
    return above / below


def _sound(values: Sequence[float]) -> Sequence[float]:
    if not values:
        raise NotMeasured("there are no values to take the median or a percentile of")
    if not all(math.isfinite(value) for value in values):
        raise NotMeasured(f"not all of {list(values)} are numbers")
    return values
