"""Distance of an arm above a mixture of others at its cost: a policy above plain arms, a plain arm above policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.lab.analysis.pareto import Point, mixture
from evaluation.lab.analysis.statistics import Interval, mean_interval, paired
from evaluation.lab.arm_names import OFF, TEACHER, is_plain
from evaluation.lab.results.rows import Arms, verdicts


@dataclass(frozen=True, slots=True)
class Margin:
    """Accuracy of an arm less that of the best mixture that costs no more, on the same `n` questions.

    The mixture gives a fraction `weight` of the questions to the arm `high`, the rest to `low`.
    """

    low: str
    high: str
    weight: float
    n: int
    value: float
    interval: Interval

    @property
    def verdict(self) -> Literal["beaten", "better", "cannot be told"]:
        """The arm is beaten or better if the interval excludes 0."""
        if self.interval.high < 0:
            return "beaten"
        return "better" if self.interval.low > 0 else "cannot be told"


def margins(arms: Arms, points: Mapping[str, Point]) -> dict[str, Margin]:
    """Compare every policy with mixtures of plain arms, and every plain arm with mixtures of student, teacher and policies.

    `off` has no margin, nor has an arm that costs less than any of the others, nor `teacher` if there is no policy.
    """
    found = {}
    for arm, point in points.items():
        if is_plain(arm):
            others = {other: at for other, at in points.items() if other in {OFF, TEACHER} or not is_plain(other)}
            others.pop(arm, None)
        else:
            others = {other: at for other, at in points.items() if is_plain(other)}
        if arm != OFF and others.keys() - {OFF} and (margin := _margin(arms, arm, point.cost, others)):
            found[arm] = margin
    return found


def _margin(arms: Arms, arm: str, cost: float, others: Mapping[str, Point]) -> Margin | None:
    mixed = mixture(others, cost)
    if not mixed:
        return None
    correct = paired(*verdicts(arms, arm, mixed.low, mixed.high)).verdicts
    gains = correct @ np.array([1.0, mixed.weight - 1, -mixed.weight])
    interval = mean_interval(gains)
    return Margin(*mixed, len(gains), float(gains.mean()), interval) if interval else None
