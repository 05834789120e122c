"""Statistics of the benchmarks."""

from __future__ import annotations

import math

import pytest

from evaluation.figures import Figure, NotMeasured, median, p95, ratio


def test_median_of_even_and_odd_counts() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5


def test_p95_is_linear_between_the_nearest_values() -> None:
    assert p95([float(value) for value in range(20, 0, -1)]) == pytest.approx(19.05)
    assert p95([float(value) for value in range(101)]) == pytest.approx(95)
    assert p95([7.0]) == 7.0


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_statistics_of_what_was_not_measured_are_an_error(values: list[float]) -> None:
    with pytest.raises(NotMeasured):
        median(values)
    with pytest.raises(NotMeasured):
        p95(values)


def test_a_ratio_to_nothing_is_an_error() -> None:
    assert ratio(3, 2) == 1.5
    with pytest.raises(NotMeasured):
        ratio(1, 0)


def test_a_figure_says_whether_it_is_what_was_asked() -> None:
    assert Figure("a", 20, "", at_most=20).met is True
    assert Figure("a", 20.1, "", at_most=20).met is False
    assert Figure("a", 0.94, "", at_least=0.95).met is False
    assert Figure("a", 0.95, "", at_least=0.95).met is True
    assert Figure("a", 1, "").met is None
    assert [
        Figure("a", 1, "", at_most=2).target,
        Figure("a", 1, "", at_least=0.95).target,
        Figure("a", 1, "").target,
    ] == [
        "≤ 2",
        "≥ 0.95",
        "",
    ]
