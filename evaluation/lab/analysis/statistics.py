"""Statistics of verdicts: intervals, paired differences, the gap recovered, and the number of questions needed.

Pure functions over verdicts: True, False or None (no verdict) for each question. Sequences given together are of the same
questions in the same order. A question on which one of the arms has no verdict is left out of all of them, and counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 10_000
SEED = 1

Verdicts = Sequence[bool | None]
Floats = npt.NDArray[np.float64]


class Interval(NamedTuple):
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


class Paired(NamedTuple):
    """Verdicts as an array (questions, arms), 1 right and 0 wrong, and the number of questions without one under some arm."""

    verdicts: Floats
    left_out: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Arm B less arm A, on the questions both have a verdict on.

    p: McNemar's exact test, two-sided; 1 if the arms never differ.
    fixed, broken: questions that only B, and only A, has right.
    needed: questions that would show this difference in four of five runs. None if there is no difference.
    """

    n: int
    left_out: int
    accuracy_a: float | None
    accuracy_b: float | None
    difference: float | None
    interval: Interval | None
    p: float
    fixed: int
    broken: int
    needed: int | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recovery:
    """(arm - student) / (teacher - student): 0 is the student, 1 the teacher. None if there is no gap to recover."""

    n: int
    left_out: int
    value: float | None
    interval: Interval | None
    warnings: tuple[str, ...]


def wilson(successes: int, n: int, *, confidence: float = CONFIDENCE) -> Interval | None:
    """Return Wilson's score interval of a share, without continuity correction; None if n is 0.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927) 209-212.
    Recommended for any n by Brown, Cai and DasGupta, Interval estimation for a binomial proportion, Statist. Sci. 16 (2001).
    """
    if n == 0:
        return None
    interval = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    share = successes / n
    return Interval(min(float(interval.low), share), max(float(interval.high), share))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact, two-sided p of McNemar's test that the questions only one arm has right fall to both alike.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12 (1947)
    153-157; exact as a binomial test of one half.
    """
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def paired(*arms: Verdicts) -> Paired:
    """Return the questions on which every arm has a verdict. Raises ValueError if the arms have different lengths."""
    known = [verdicts for verdicts in zip(*arms, strict=True) if None not in verdicts]
    left_out = len(arms[0]) - len(known)
    return Paired(np.array(known, dtype=np.float64).reshape(len(known), len(arms)), left_out)


def resampled_means(values: Floats, *, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Return the means of `resamples` bootstrap samples of the rows of `values`, (n, k) with n > 0: an array (resamples, k).

    Equal rows are drawn together: the number of each kind of row in a sample is multinomial. With verdicts there are at most
    2**k kinds, for any n.

    Source: B. Efron, Bootstrap methods: another look at the jackknife, Ann. Statist. 7 (1979) 1-26.
    """
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(values), counts / len(values), size=resamples)
    means: Floats = drawn @ kinds / len(values)
    return means


def mean_interval(values: Floats, *, confidence: float = CONFIDENCE, seed: int = SEED) -> Interval | None:
    """Return the percentile bootstrap interval of the mean of `values`, (n,); None if n is 0. Source: as `resampled_means`."""
    if not len(values):
        return None
    interval = _percentile(resampled_means(values.reshape(-1, 1), seed=seed)[:, 0], confidence)
    mean = float(values.mean())
    return Interval(min(interval.low, mean), max(interval.high, mean))


def difference(a: Verdicts, b: Verdicts, *, confidence: float = CONFIDENCE, seed: int = SEED) -> Difference:
    """Return B less A on the same questions, with a paired bootstrap interval and McNemar's test."""
    verdicts, left_out = paired(a, b)
    n = len(verdicts)
    if not n:
        warning = "no question has a verdict under both arms: nothing can be compared"
        return Difference(0, left_out, None, None, None, None, 1.0, 0, 0, None, (warning,))
    change = verdicts[:, 1] - verdicts[:, 0]
    fixed, broken = int((change > 0).sum()), int((change < 0).sum())
    by = float(change.mean())
    interval = mean_interval(change, confidence=confidence, seed=seed)
    p = mcnemar(broken, fixed)
    needed = questions_needed(by, (fixed + broken) / n, confidence=confidence) if by else None
    return Difference(
        n=n,
        left_out=left_out,
        accuracy_a=float(verdicts[:, 0].mean()),
        accuracy_b=float(verdicts[:, 1].mean()),
        difference=by,
        interval=interval,
        p=p,
        fixed=fixed,
        broken=broken,
        needed=needed,
        warnings=_warnings(n, left_out, fixed, broken, needed=needed, shown=p <= 1 - confidence, p=p),
    )


def gap_recovered(
    student: Verdicts, arm: Verdicts, teacher: Verdicts, *, confidence: float = CONFIDENCE, seed: int = SEED
) -> Recovery:
    """Return the part of the way from student to teacher that an arm goes, with a paired bootstrap interval.

    Source: the performance gap recovered of Burns and others, Weak-to-strong generalization, arXiv 2312.09390 (2023). A ratio has
    no interval if its divisor may be 0: samples in which the teacher is no better than the student are left out, and if there
    are more of them than the interval leaves out on one side, there is none.
    """
    verdicts, left_out = paired(student, arm, teacher)
    n = len(verdicts)
    if not n:
        warning = "no question has a verdict under student, arm and teacher: the gap recovered is undefined"
        return Recovery(0, left_out, None, None, (warning,))
    low, reached, high = (float(mean) for mean in verdicts.mean(axis=0))
    if high <= low:
        warning = f"the teacher ({high:.1%}) is no better than the student ({low:.1%}): there is no gap to recover"
        return Recovery(n, left_out, None, None, (warning,))
    means = resampled_means(verdicts, seed=seed)
    gaps = means[:, 2] - means[:, 0]
    sound = gaps > 0
    value = (reached - low) / (high - low)
    if 1 - sound.mean() > (1 - confidence) / 2:
        warning = "the gap between teacher and student may be zero: the share recovered has no interval"
        return Recovery(n, left_out, value, None, (warning,))
    interval = _percentile((means[sound, 1] - means[sound, 0]) / gaps[sound], confidence)
    return Recovery(n, left_out, value, Interval(min(interval.low, value), max(interval.high, value)), ())


def questions_needed(
    by: float, discordant: float, *, confidence: float = CONFIDENCE, power: float = POWER
) -> int | None:
    """Return the questions with which McNemar's test shows a difference `by` in a share `power` of runs; None if `by` is 0.

    `discordant` is the share of questions that only one of the arms has right; it is at least as large as the difference.

    Source: R. J. Connor, Sample size for testing differences in proportions for the paired-sample design, Biometrics 43 (1987)
    207-211, which is a little larger than O. S. Miettinen's, The matched pairs design in the case of all-or-none responses,
    Biometrics 24 (1968) 339-352. Both are for the test's normal form; the exact test needs a few questions more.
    """
    by = abs(by)
    if not by:
        return None
    discordant = max(discordant, by)
    z_test = float(stats.norm.ppf((1 + confidence) / 2))
    z_power = float(stats.norm.ppf(power))
    n = (z_test * math.sqrt(discordant) + z_power * math.sqrt(discordant - by**2)) ** 2 / by**2
    return math.ceil(n - 1e-9)


def _percentile(values: Floats, confidence: float) -> Interval:
    """Source: B. Efron, as `resampled_means`; linear between the two nearest values."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _warnings(
    n: int, left_out: int, fixed: int, broken: int, *, p: float, shown: bool, needed: int | None
) -> tuple[str, ...]:
    """Return warnings about questions left out, and about arms that the data cannot tell apart."""
    warnings: list[str] = []
    if left_out:
        warnings.append(f"{left_out} of {n + left_out} questions are left out: one of the arms has no verdict on them")
    if not fixed and not broken:
        warnings.append(
            f"the arms are right on the same {n} questions: they cannot be told apart, and the interval has no meaning"
        )
    elif needed is None:
        warnings.append(f"each arm alone is right on {fixed} questions: they cannot be told apart")
    elif not shown:
        warnings.append(
            f"the data cannot tell which arm is better (p = {p:.2g}): if the difference is real, "
            f"about {needed:,} questions are needed to show it, and there are {n:,}"
        )
    return tuple(warnings)
