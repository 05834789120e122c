"""Decisions of the tuner: which arms it keeps asking, and which one it takes. Pure functions of rows.

The search is a race (O. Maron and A. W. Moore, Hoeffding races, NIPS 1993): all arms meet the same questions, block by block,
and after each block the arms leave that can hardly win. Arms are compared on the questions that both have a verdict on, by a
paired bootstrap.

The race looks at the same arms several times. The chance of error is split evenly over the stages, and over the rivals if an
arm is compared with several (Bonferroni), so that an arm which keeps enough accuracy is dropped as hopeless in at most one of
twenty races, whatever the number of stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import stats

from evaluation.lab.analysis.statistics import SEED, Floats, Verdicts, paired, resampled_means
from evaluation.lab.arm_names import OFF, TEACHER
from evaluation.lab.results.rows import Arms, Row, verdicts

ERROR = 0.05
"""Chance that a one-sided bound is on the wrong side."""
ROLLOUT_FRACTIONS = [step / 20 for step in range(1, 20)]
Amount = Callable[[Row], float]
"""Cost of a question under an arm, in dollars or tokens."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Accuracy of an arm divided by the teacher's, on the same `n` questions, with one-sided bounds.

    `high` is infinite if the teacher may have no question right.
    """

    n: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """An arm that costs less than the teacher.

    cost: of one question, in the unit of the search.
    shown: True if the lower bound of its retention is at least the one asked for.
    rollout_fraction: fraction of the questions that the arm is for; the student alone answers the rest.
    """

    arm: str
    retention: Retention
    cost: float
    shown: bool
    rollout_fraction: float = 1.0


def blocks(questions: int, first: int) -> list[range]:
    """Return the places of each stage's questions: `first`, then as many again as there were, up to the last.

    A rest smaller than half the block before it joins that block. Raises ValueError if `first` is not positive.
    """
    if first < 1:
        raise ValueError(f"the first block must have at least one question, not {first}")
    ends = [0]
    while ends[-1] < questions:
        ends.append(min(questions, max(first, 2 * ends[-1])))
    if len(ends) > 2 and 2 * (ends[-1] - ends[-2]) < ends[-2] - ends[-3]:
        del ends[-2]
    return [range(low, high) for low, high in pairwise(ends)]


def valid_rows(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return the rows that measure their arm, by arm and question: those with a verdict, and without a fallback."""
    arms: dict[str, dict[str, Row]] = {row.arm: {} for row in rows}
    for row in rows:
        if row.correct is not None and row.error is None and row.fallback is None:
            arms[row.arm][row.question_id] = row
    return arms


def retention(arm: Verdicts, teacher: Verdicts, *, error: float = ERROR) -> Retention | None:
    """Return the part of the teacher's accuracy that an arm keeps; None if the teacher has no question right.

    The bounds are quantiles of a paired bootstrap. Each is computed with one more question that speaks against it: one that
    only the teacher has right for the lower bound, one that only the arm has right for the upper. Without it a few questions
    on which both agree would have no spread at all, and would pass for proof (A. Agresti and B. A. Coull, Approximate is
    better than "exact" for interval estimation of binomial proportions, Am. Statist. 52 (1998), add such questions for the
    same reason).
    """
    return _retention(paired(arm, teacher).verdicts, error)


def rollout_retention(arms: Arms, arm: str, fraction: float) -> Retention | None:
    """Return the retention of an arm for a fraction of the questions, if the student alone answers the rest.

    Each question counts with its expected correctness, so no random draw is needed.
    """
    correct = paired(*verdicts(arms, OFF, arm, TEACHER)).verdicts
    return _retention(correct @ np.array([[1 - fraction, 0], [fraction, 0], [0, 1]]), ERROR)


def _retention(correct: Floats, error: float) -> Retention | None:
    """`correct` has a row for each question and two columns: the arm's and the teacher's correctness."""
    if not len(correct) or not correct[:, 1].any():
        return None
    value = float(correct[:, 0].mean() / correct[:, 1].mean())
    low = _ratio_quantile(correct, [0.0, 1.0], error, undefined=0.0)
    high = _ratio_quantile(correct, [1.0, 0.0], 1 - error, undefined=math.inf)
    return Retention(len(correct), value, min(low, value), max(high, value))


def race(arms: Arms, running: Sequence[str], keep: float, amount: Amount, *, stages: int) -> dict[str, str]:
    """Return the arms that can hardly be the cheapest which keeps `keep` of the teacher's accuracy, with the reasons.

    `arms` holds the rows of all arms that are still asked. `off` and `teacher` are among them as references and are never
    dropped. `stages` is the largest number of stages that the race can have.
    """
    rivals = [arm for arm in running if arm not in {OFF, TEACHER}]
    error = ERROR / stages
    kept = {arm: retention(*verdicts(arms, arm, TEACHER), error=error) for arm in [OFF, *rivals]}
    reasons = {arm: _reason(arms, arm, kept, keep, amount, error=error / len(rivals)) for arm in rivals}
    return {arm: reason for arm, reason in reasons.items() if reason}


def _reason(
    arms: Arms, arm: str, kept: Mapping[str, Retention | None], keep: float, amount: Amount, *, error: float
) -> str | None:
    """Return why an arm is dropped, if it is. `error` is that of one comparison with another arm."""
    own = kept[arm]
    if own and own.high < keep:
        return f"keeps {own.high:.1%} at most"
    if _cheaper(arms, TEACHER, arm, amount, error):
        return "costs more than the teacher"
    cheaper = [other for other in kept if other != arm and _cheaper(arms, other, arm, amount, error)]
    for other in cheaper:
        theirs = kept[other]
        if theirs and theirs.low >= keep:
            return f"{other} keeps enough for less"
    return next((f"{other} is better for less" for other in cheaper if _better(arms, other, arm, error)), None)


def choose(
    arms: Arms, running: Sequence[str], keep: float, amount: Amount, *, rollout: Sequence[str] = ()
) -> Candidate | None:
    """Return the cheapest arm whose lower bound is `keep`; without one, the cheapest whose estimate is; otherwise None.

    The teacher itself, and an arm that costs as much, is no candidate. Arms of `rollout`, which may include the teacher, are
    also considered for a fraction of the questions.
    """
    candidates = _candidates(arms, running, keep, amount)
    candidates += [candidate for arm in rollout for candidate in _rollouts(arms, arm, keep, amount)]
    by_cost = sorted(candidates, key=lambda candidate: (candidate.cost, -candidate.retention.value))
    shown = [candidate for candidate in by_cost if candidate.shown]
    return next(iter(shown or [candidate for candidate in by_cost if candidate.retention.value >= keep]), None)


def best_effort(arms: Arms, running: Sequence[str], keep: float, amount: Amount) -> Candidate | None:
    """Return the arm that keeps most of the teacher's accuracy among those that cost less; the cheapest of equals."""
    candidates = _candidates(arms, running, keep, amount)
    return max(candidates, key=lambda candidate: (candidate.retention.value, -candidate.cost), default=None)


def mean_amount(rows: Mapping[str, Row], amount: Amount) -> float:
    """Return the mean over the questions; 0 without rows."""
    return sum(map(amount, rows.values())) / len(rows) if rows else 0.0


def _candidates(arms: Arms, running: Sequence[str], keep: float, amount: Amount) -> list[Candidate]:
    """Each arm is compared with the teacher on the arm's own questions, since a dropped arm has fewer."""
    candidates = []
    for arm in dict.fromkeys([OFF, *running]):
        kept = retention(*verdicts(arms, arm, TEACHER))
        if arm == TEACHER or kept is None:
            continue
        same = {question: row for question, row in arms[TEACHER].items() if question in arms[arm]}
        cost = mean_amount(arms[arm], amount)
        if cost < mean_amount(same, amount):
            candidates.append(Candidate(arm, kept, cost, kept.low >= keep))
    return candidates


def _rollouts(arms: Arms, arm: str, keep: float, amount: Amount) -> list[Candidate]:
    """The smallest fraction for which an arm's lower bound is `keep`, and the smallest for which its estimate is."""
    same = arms[OFF].keys() & arms[arm].keys() & arms[TEACHER].keys()
    student, whole, teacher = (
        mean_amount({question: arms[name][question] for question in same}, amount) for name in (OFF, arm, TEACHER)
    )
    found: list[Candidate] = []
    for fraction in ROLLOUT_FRACTIONS:
        kept = rollout_retention(arms, arm, fraction)
        cost = (1 - fraction) * student + fraction * whole
        if kept is None or cost >= teacher or (found and found[-1].shown):
            break
        shown = kept.low >= keep
        if shown or (kept.value >= keep and not found):
            found.append(Candidate(arm, kept, cost, shown, fraction))
    return found


def _ratio_quantile(correct: Floats, against: Sequence[float], quantile: float, *, undefined: float) -> float:
    """Return a bootstrap quantile of the ratio of both columns' means, with one more question, `against`."""
    means = resampled_means(np.vstack([correct, against]), seed=SEED)
    ratios = np.full(len(means), undefined)
    np.divide(means[:, 0], means[:, 1], out=ratios, where=means[:, 1] > 0)
    # An observed value, not one between two: there is none between a number and infinity.
    return float(np.quantile(ratios, quantile, method="lower" if quantile < 0.5 else "higher"))


def _better(arms: Arms, one: str, other: str, error: float) -> bool:
    """True if the data can show that `one` has more questions right."""
    correct = paired(*verdicts(arms, one, other)).verdicts
    gains = np.append(correct[:, 0] - correct[:, 1], -1.0).reshape(-1, 1)
    return bool(np.quantile(resampled_means(gains, seed=SEED)[:, 0], error) > 0)


def _cheaper(arms: Arms, one: str, other: str, amount: Amount, error: float) -> bool:
    """True if the data can show that `one` costs less, by Student's t on the same questions."""
    same = [question for question in arms[one] if question in arms[other]]
    if len(same) < 2:
        return False
    more = np.array([amount(arms[other][question]) - amount(arms[one][question]) for question in same])
    spread = float(more.std(ddof=1)) / math.sqrt(len(more))
    return bool(float(more.mean()) - float(stats.t.ppf(1 - error, len(more) - 1)) * spread > 0)
