"""How far an arm is above a mixture of others at its cost: a policy above plain arms, a plain one above ends and policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluation.lab.analysis import pareto
from evaluation.lab.analysis.statistics import Interval, mean_interval, paired
from evaluation.lab.arm_names import OFF, TEACHER, is_plain
from evaluation.lab.results.rows import Arms, verdicts


@dataclass(frozen=True, slots=True)
class Margin:
    """How far an arm is above the best mixture that costs no more, on the same questions."""

    low: str
    high: str
    weight: float
    """The share of questions that the mixture gives to `high`; the rest goes to `low`."""
    n: int
    value: float
    interval: Interval

    @property
    def verdict(self) -> Literal["beaten", "better", "cannot be told"]:
        """Whether the mixture is better, or worse, and the data can tell."""
        if self.interval.high < 0:
            return "beaten"
        return "better" if self.interval.low > 0 else "cannot be told"


def margins(arms: Arms, points: Mapping[str, pareto.Point | None]) -> dict[str, Margin]:
    """Of every policy over mixtures of plain arms, and of every plain arm over mixtures of student, teacher and policies.

    None of `off` itself, nor of an arm that costs less than any of the others, nor of `teacher` where there is no policy.
    """
    known = {arm: point for arm, point in points.items() if point}
    plain = {arm: point for arm, point in known.items() if is_plain(arm)}
    clever = {arm: point for arm, point in known.items() if not is_plain(arm)}
    found = {}
    for arm, point in known.items():
        ends = {end: known[end] for end in (OFF, TEACHER) if end in known and end != arm}
        others = plain if arm in clever else ends | clever
        if arm != OFF and others.keys() - {OFF}:
            found[arm] = _margin(arms, arm, point.cost, others)
    return {arm: margin for arm, margin in found.items() if margin}


def _margin(arms: Arms, arm: str, cost: float, others: Mapping[str, pareto.Point]) -> Margin | None:
    names = list(others)
    mixed = pareto.mixture(list(others.values()), cost)
    if not mixed:
        return None
    low, high = names[mixed.low], names[mixed.high]
    known = paired(*verdicts(arms, arm, low, high)).verdicts
    gains = known @ np.array([1.0, mixed.weight - 1, -mixed.weight])
    interval = mean_interval(gains)
    return Margin(low, high, mixed.weight, len(gains), float(gains.mean()), interval) if interval else None
