"""Accuracy against cost: which arms nobody beats, and what a mixture of arms would reach."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Point(NamedTuple):
    cost: float
    """In any unit: dollars, tokens."""
    accuracy: float


class Mixture(NamedTuple):
    """Question by question, arm `high` with the chance `weight`, else arm `low`. Both are places in what was given."""

    low: int
    high: int
    weight: float


def pareto(points: Sequence[Point]) -> list[int]:
    """Places of the points that no other beats: none is as good in both and better in one. The cheapest comes first."""
    order = sorted(range(len(points)), key=lambda at: (points[at].cost, -points[at].accuracy))
    front: list[int] = []
    for at in order:
        if not front or points[at].accuracy > points[front[-1]].accuracy or points[at] == points[front[-1]]:
            front.append(at)
    return front


def hull(points: Sequence[Point]) -> list[int]:
    """Places of the corners of the upper convex hull, from the cheapest point up to the most accurate one.

    Every point on its edges can be had by drawing between two arms at random, so it is what a clever arm has to beat.
    Source: A. M. Andrew, Another efficient algorithm for convex hulls in two dimensions, Inf. Proc. Lett. 9 (1979) 216-219.
    """
    corners: list[int] = []
    for at in pareto(points):
        if corners and points[at] == points[corners[-1]]:
            continue
        while len(corners) > 1 and not _turns_down(points[corners[-2]], points[corners[-1]], points[at]):
            corners.pop()
        corners.append(at)
    return corners


def mixture(points: Sequence[Point], cost: float) -> Mixture | None:
    """What reaches the hull of `points` at `cost`. None where even the cheapest of them costs more."""
    corners = hull(points)
    if not corners or cost < points[corners[0]].cost:
        return None
    for low, high in pairwise(corners):
        if cost < points[high].cost:
            return Mixture(low, high, (cost - points[low].cost) / (points[high].cost - points[low].cost))
    return Mixture(corners[-1], corners[-1], 1.0)


def _turns_down(first: Point, second: Point, third: Point) -> bool:
    """Whether the way over the three points bends towards less accuracy for more cost."""
    rise = (second.accuracy - first.accuracy) * (third.cost - second.cost)
    return rise > (third.accuracy - second.accuracy) * (second.cost - first.cost)
