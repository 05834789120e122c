"""Statistics against published examples, and properties that hold for any verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluation.lab.analysis.statistics import (
    difference,
    gap_recovered,
    mcnemar,
    mean_interval,
    paired,
    questions_needed,
    resampled_means,
    wilson,
)

RIGHT, WRONG = True, False
verdict = st.sampled_from([True, False, None])
two_arms = st.lists(st.tuples(verdict, verdict), min_size=1, max_size=60)
three_arms = st.lists(st.tuples(verdict, verdict, verdict), min_size=1, max_size=60)


def _arms(fixed: int, broken: int, both: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [False] * fixed + [True] * broken + [True] * both + [False] * neither
    b = [True] * fixed + [False] * broken + [True] * both + [False] * neither
    return a, b


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (10, 20, 0.2993, 0.7007),  # statsmodels' proportion_confint(10, 20, method="wilson")
        (81, 263, 0.2553, 0.3662),  # R. G. Newcombe, Statist. Med. 17 (1998) 857-872, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_one(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_no_questions_have_no_interval() -> None:
    assert wilson(0, 0) is None
    assert mean_interval(np.array([])) is None


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_within_0_and_1(pair: tuple[int, int]) -> None:
    successes, n = pair
    interval = wilson(successes, n)
    assert interval
    assert interval.holds(successes / n)
    assert interval.low >= 0 and interval.high <= 1
    mirrored = wilson(n - successes, n)
    assert mirrored == pytest.approx((1 - interval.high, 1 - interval.low))


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (1, 9, 0.021484375),  # 2 * (1 + 10) / 2**10
        (121, 59, 2 * sum(math.comb(180, k) for k in range(60)) / 2**180),
        (0, 0, 1.0),
        (7, 7, 1.0),
        (0, 5, 0.0625),
    ],
)
def test_mcnemar_is_exact(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p, rel=1e-9)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_does_not_care_which_arm_is_first(only_a: int, only_b: int) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(mcnemar(only_b, only_a))


def test_a_difference_counts_what_was_fixed_and_broken() -> None:
    told = difference(*_arms(fixed=9, broken=1, both=40, neither=50))

    assert (told.n, told.left_out, told.fixed, told.broken) == (100, 0, 9, 1)
    assert told.accuracy_a == pytest.approx(0.41)
    assert told.accuracy_b == pytest.approx(0.49)
    assert told.difference == pytest.approx(0.08)
    assert told.p == pytest.approx(0.021484375)
    assert told.interval
    assert 0 < told.interval.low < 0.08 < told.interval.high
    assert told.warnings == ()


def test_where_the_data_cannot_tell_it_says_so_and_what_it_would_take() -> None:
    told = difference(*_arms(fixed=6, broken=4, both=40, neither=50))

    assert told.p > 0.5
    assert told.interval
    assert told.interval.holds(0)
    assert told.needed == questions_needed(0.02, 0.10)
    assert told.needed
    assert len(told.warnings) == 1
    assert f"{told.needed:,} questions" in told.warnings[0]
    assert "cannot tell" in told.warnings[0]


def test_questions_without_a_verdict_are_left_out_and_counted() -> None:
    told = difference([RIGHT, None, WRONG, RIGHT], [RIGHT, RIGHT, None, WRONG])

    assert (told.n, told.left_out, told.fixed, told.broken) == (2, 2, 0, 1)
    assert "2 of 4 questions are left out" in told.warnings[0]


def test_arms_that_never_differ_cannot_be_told_apart() -> None:
    told = difference([RIGHT, WRONG], [RIGHT, WRONG])
    assert (told.difference, told.p, told.needed) == (0, 1.0, None)
    assert "they cannot be told apart" in told.warnings[0]

    nothing = difference([None], [RIGHT])
    assert (nothing.n, nothing.difference, nothing.interval) == (0, None, None)
    assert nothing.warnings


def test_arms_of_different_questions_are_no_pair() -> None:
    with pytest.raises(ValueError, match="longer"):
        paired([RIGHT], [RIGHT, WRONG])


@settings(deadline=None, max_examples=60)
@given(two_arms)
def test_a_difference_is_within_its_interval_and_turns_with_the_arms(
    pairs: list[tuple[bool | None, bool | None]],
) -> None:
    a, b = [first for first, _ in pairs], [second for _, second in pairs]
    there, back = difference(a, b), difference(b, a)

    assert there.p == pytest.approx(back.p)
    assert (there.fixed, there.needed) == (back.broken, back.needed)
    if there.difference is not None and there.interval and back.difference is not None:
        assert there.difference == pytest.approx(-back.difference)
        assert there.interval.holds(there.difference)


def test_the_bootstrap_is_as_wide_as_theory_says_and_seeded() -> None:
    values = np.repeat([1.0, 0.0, -1.0], [60, 110, 30])
    means = resampled_means(values.reshape(-1, 1))[:, 0]

    assert means.mean() == pytest.approx(0.15, abs=0.002)
    assert means.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.03)
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values) != mean_interval(values, seed=2)


def test_the_bootstrap_agrees_with_scipys() -> None:
    values = np.repeat([1.0, 0.0, -1.0], [60, 110, 30])
    theirs = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(3)).confidence_interval
    assert mean_interval(values) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_the_gap_recovered() -> None:
    student = [True] * 20 + [False] * 80
    arm = [True] * 45 + [False] * 55
    teacher = [True] * 70 + [False] * 30
    told = gap_recovered(student, arm, teacher)

    assert told.value == pytest.approx(0.5)
    assert told.interval
    assert 0.3 < told.interval.low < 0.5 < told.interval.high < 0.7
    assert told.warnings == ()
    assert gap_recovered(student, student, teacher).value == 0
    whole = gap_recovered(student, teacher, teacher)
    assert (whole.value, whole.interval) == (1, (1, 1))


def test_without_a_gap_nothing_is_recovered() -> None:
    told = gap_recovered([RIGHT, WRONG], [RIGHT, RIGHT], [WRONG, RIGHT])
    assert (told.value, told.interval) == (None, None)
    assert "no better" in told.warnings[0]

    unsure = gap_recovered([True] * 10 + [False] * 10, [True] * 11 + [False] * 9, [True] * 12 + [False] * 8)
    assert unsure.value == pytest.approx(0.5)
    assert unsure.interval is None
    assert "no interval" in unsure.warnings[0]

    assert gap_recovered([None], [RIGHT], [RIGHT]).value is None


@settings(deadline=None, max_examples=60)
@given(three_arms)
def test_what_is_recovered_is_within_its_interval(triples: list[tuple[bool | None, bool | None, bool | None]]) -> None:
    told = gap_recovered(*(list(arm) for arm in zip(*triples, strict=True)))
    assert told.n + told.left_out == len(triples)
    assert (told.value is None or told.interval is None) == bool(told.warnings)
    if told.value is not None and told.interval:
        assert told.interval.holds(told.value)


def test_so_many_questions_give_the_power_asked_for() -> None:
    """Compare with the test's exact power, over all counts of questions that only one arm answers correctly."""
    by, discordant = 0.1, 0.3
    n = questions_needed(by, discordant)
    assert n == 234  # Connor: (1.960 * sqrt(0.3) + 0.8416 * sqrt(0.29))**2 / 0.01 = 233.1
    chance = (discordant + by) / 2 / discordant
    power = 0.0
    for count in range(n + 1):
        told = sum(stats.binom.pmf(k, count, chance) for k in range(count + 1) if _told(k, count))
        power += float(stats.binom.pmf(count, n, discordant)) * told
    assert power == pytest.approx(0.8, abs=0.01)


def _told(k: int, count: int) -> bool:
    """The normal approximation of the test, which the formula is for."""
    return count > 0 and abs(2 * k - count) > 1.959964 * np.sqrt(count)


def test_a_smaller_difference_takes_more_questions() -> None:
    assert questions_needed(0.0, 0.2) is None
    assert questions_needed(-0.1, 0.3) == questions_needed(0.1, 0.3)
    needed = [questions_needed(by, 0.3) or 0 for by in (0.3, 0.2, 0.1, 0.05, 0.01)]
    assert needed == sorted(needed)
