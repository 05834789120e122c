"""Pareto fronts, hulls and mixtures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.lab.analysis.pareto import Mixture, Point, hull, mixture, pareto


def named(*points: Point) -> dict[str, Point]:
    return {f"arm-{at}": point for at, point in enumerate(points)}


POINTS = named(Point(0, 0.2), Point(1, 0.3), Point(2, 0.6), Point(3, 0.5), Point(4, 0.7))
many = st.lists(st.builds(Point, st.integers(0, 20).map(float), st.integers(0, 20).map(float)), min_size=1, max_size=15)


def test_the_front_leaves_out_what_is_beaten() -> None:
    assert pareto(POINTS) == ["arm-0", "arm-1", "arm-2", "arm-4"]
    assert pareto(named(Point(1, 0.5), Point(1, 0.5), Point(1, 0.4), Point(2, 0.5))) == ["arm-0", "arm-1"]
    assert pareto({}) == []


def test_the_hull_leaves_out_what_mixtures_beat() -> None:
    assert hull(POINTS) == ["arm-0", "arm-2", "arm-4"]
    assert hull(named(Point(0, 0.5), Point(1, 0.4))) == ["arm-0"]


def test_a_mixture_lies_between_two_corners() -> None:
    assert mixture(POINTS, 1) == Mixture("arm-0", "arm-2", 0.5)
    assert mixture(POINTS, 2) == Mixture("arm-2", "arm-4", 0.0)
    assert mixture(POINTS, 9) == Mixture("arm-4", "arm-4", 1.0)
    assert mixture(POINTS, -1) is None
    assert mixture({}, 1) is None


@given(many)
def test_no_point_beats_the_front_and_none_is_above_the_hull(chosen: list[Point]) -> None:
    points = named(*chosen)
    front = pareto(points)
    for arm, point in points.items():
        beaten = any(
            other.cost <= point.cost and other.accuracy >= point.accuracy and other != point for other in chosen
        )
        assert (arm in front) is not beaten
        mixed = mixture(points, point.cost)
        assert mixed
        reached = (1 - mixed.weight) * points[mixed.low].accuracy + mixed.weight * points[mixed.high].accuracy
        assert reached >= point.accuracy - 1e-9
        assert reached == pytest.approx(max(reached, point.accuracy))
