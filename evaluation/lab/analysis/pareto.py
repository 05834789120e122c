"""Accuracy against cost: the arms that no other arm beats, and the accuracy of mixtures of arms."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple


class Point(NamedTuple):
    """Cost, in any unit, and accuracy of an arm."""

    cost: float
    accuracy: float


class Mixture(NamedTuple):
    """A random choice for each question: arm `high` with probability `weight`, otherwise arm `low`."""

    low: str
    high: str
    weight: float


def pareto(points: Mapping[str, Point]) -> list[str]:
    """Return the arms that no other beats, by being as good in both and better in one. The cheapest comes first."""
    front: list[str] = []
    for arm in sorted(points, key=lambda arm: (points[arm].cost, -points[arm].accuracy)):
        last = points[front[-1]] if front else None
        if last is None or points[arm].accuracy > last.accuracy or points[arm] == last:
            front.append(arm)
    return front


def hull(points: Mapping[str, Point]) -> list[str]:
    """Return the corners of the upper convex hull, from the cheapest arm up to the most accurate one.

    A random choice between two arms reaches every point on its edges, so a clever arm must be above it.
    Source: A. M. Andrew, Another efficient algorithm for convex hulls in two dimensions, Inf. Proc. Lett. 9 (1979) 216-219.
    """
    corners: list[str] = []
    for arm in pareto(points):
        if corners and points[arm] == points[corners[-1]]:
            continue
        while len(corners) > 1 and not _turns_down(points[corners[-2]], points[corners[-1]], points[arm]):
            corners.pop()
        corners.append(arm)
    return corners


def mixture(points: Mapping[str, Point], cost: float) -> Mixture | None:
    """Return the mixture that reaches the hull at `cost`. None if even the cheapest arm costs more."""
    corners = hull(points)
    if not corners or cost < points[corners[0]].cost:
        return None
    for low, high in pairwise(corners):
        if cost < points[high].cost:
            return Mixture(low, high, (cost - points[low].cost) / (points[high].cost - points[low].cost))
    return Mixture(corners[-1], corners[-1], 1.0)


def _turns_down(first: Point, second: Point, third: Point) -> bool:
    """True if the path over the points bends towards less accuracy for more cost."""
    rise = (second.accuracy - first.accuracy) * (third.cost - second.cost)
    return rise > (third.accuracy - second.accuracy) * (second.cost - first.cost)
