"""Which arms a tuner goes on with, and which one it takes. Pure decisions on rows.

A race (O. Maron and A. W. Moore, Hoeffding races, NIPS 1993): all arms meet the same questions, block by block, and after each
block those leave that can hardly win. Arms are compared on the questions that both have a verdict on, by a paired bootstrap.

The race looks at the same arms several times. The chance of error is split evenly over the looks, and where an arm is compared
with several rivals over these too (Bonferroni), so that an arm which keeps the share asked for is dropped as hopeless in at most
one of twenty races, whatever the number of looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import stats

from evaluation.lab.analysis.statistics import SEED, Floats, Verdicts, paired, resampled_means
from evaluation.lab.arm_names import OFF, TEACHER
from evaluation.lab.results.rows import Row, verdicts

ERROR = 0.05
"""The chance that a one-sided bound is on the wrong side."""

Amount = Callable[[Row], float]
"""What a question cost under an arm: dollars, tokens."""
Outcomes = Mapping[str, Mapping[str, Row]]
"""Rows by arm and question; every one has a verdict."""
SHARES = [step / 20 for step in range(1, 20)]
"""Of the questions, that an arm may be for."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The accuracy of an arm over that of the teacher, on the same `n` questions, with one-sided bounds.

    `high` is infinite where the teacher may have no question right.
    """

    n: int
    value: float
    low: float
    high: float


class Dropped(NamedTuple):
    arm: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    arm: str
    kept: Kept
    cost: float
    """A question, in the unit of the search."""
    shown: bool
    """Whether the lower bound of the share kept is as high as was asked for."""
    share: float = 1.0
    """Of the questions that the arm is for, by lot; the student alone answers the others."""


def blocks(questions: int, first: int) -> list[range]:
    """Places of the questions of each stage: `first`, then as many again as there were, to the last.

    An end that is smaller than half the block before it is part of that block. Raises ValueError where `first` is not positive.
    """
    if first < 1:
        raise ValueError("a block has a question at least")
    ends = [0]
    while ends[-1] < questions:
        ends.append(min(questions, max(first, 2 * ends[-1])))
    if len(ends) > 2 and 2 * (ends[-1] - ends[-2]) < ends[-2] - ends[-3]:
        del ends[-2]
    return [range(low, high) for low, high in pairwise(ends)]


def sound(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Rows that say what their arm is worth: without those that have no verdict, or in which the student had to stand in."""
    arms: dict[str, dict[str, Row]] = {}
    for row in rows:
        arms.setdefault(row.arm, {})
        if row.correct is not None and row.error is None and row.fallback is None:
            arms[row.arm][row.question_id] = row
    return arms


def kept_share(arm: Verdicts, teacher: Verdicts, *, error: float = ERROR) -> Kept | None:
    """How much of the teacher's accuracy an arm keeps. None where the teacher has no question right.

    Bounds are quantiles of a paired bootstrap. Each is reckoned with one more question that speaks against it: one that only the
    teacher has right for the lower, one that only the arm has right for the upper. Without it a few questions on which both agree
    would have no spread at all, and would pass for proof (A. Agresti and B. A. Coull, Approximate is better than "exact" for
    interval estimation of binomial proportions, Am. Statist. 52 (1998), add such questions for the same reason).
    """
    return _kept(paired(arm, teacher).verdicts, error)


def kept_by_lot(arms: Outcomes, arm: str, share: float) -> Kept | None:
    """As `kept_share`, of an arm for a share of the questions where the student alone answers the others.

    A question is worth what its answer is worth on average over the lots, so no lot has to be drawn.
    """
    known = paired(*verdicts(arms, OFF, arm, TEACHER)).verdicts
    return _kept(known @ np.array([[1 - share, 0], [share, 0], [0, 1]]), ERROR)


def _kept(known: Floats, error: float) -> Kept | None:
    """Of what an arm and the teacher are worth on each question, (n, 2)."""
    if not len(known) or not known[:, 1].any():
        return None
    value = float(known[:, 0].mean() / known[:, 1].mean())
    low = _ratio(known, [0.0, 1.0], quantile=error, undefined=0.0)
    high = _ratio(known, [1.0, 0.0], quantile=1 - error, undefined=math.inf)
    return Kept(len(known), value, min(low, value), max(high, value))


def race(arms: Outcomes, running: Sequence[str], keep: float, amount: Amount, *, looks: int) -> list[Dropped]:
    """The arms of `running` that can hardly be the cheapest which keeps `keep` of the teacher's accuracy, and why.

    `arms` holds the rows of all arms that are still asked, `off` and `teacher` among them; these are measured by, and never
    dropped. `looks` is how many stages the race has, at most.
    """
    rivals = [arm for arm in running if arm not in {OFF, TEACHER}]
    error = ERROR / looks
    kept = {arm: kept_share(*verdicts(arms, arm, TEACHER), error=error) for arm in [OFF, *rivals]}
    return [
        Dropped(arm, why)
        for arm in rivals
        if (why := _why_not(arms, arm, kept, keep, amount, error=error / len(rivals)))
    ]


def _why_not(
    arms: Outcomes, arm: str, kept: Mapping[str, Kept | None], keep: float, amount: Amount, *, error: float
) -> str | None:
    """Why an arm need not be asked any more. `error` is for each comparison with another arm."""
    share = kept[arm]
    if share and share.high < keep:
        return f"keeps {share.high:.1%} at most"
    if _cheaper(arms, TEACHER, arm, amount, error):
        return "costs more than the teacher"
    cheaper = [other for other in kept if other != arm and _cheaper(arms, other, arm, amount, error)]
    for other in cheaper:
        theirs = kept[other]
        if theirs and theirs.low >= keep:
            return f"{other} keeps enough for less"
    return next((f"{other} is better for less" for other in cheaper if _better(arms, other, arm, error)), None)


def choose(
    arms: Outcomes, running: Sequence[str], keep: float, amount: Amount, *, by_lot: Sequence[str] = ()
) -> Choice | None:
    """The cheapest arm whose lower bound is `keep`; where there is none, the cheapest whose estimate is. None where none is.

    The teacher itself, and what costs as much as it, is no choice. Arms of `by_lot`, and the teacher if it is among them, may be
    for a share of the questions too.
    """
    saving = _choices(arms, running, keep, amount)
    saving += [choice for arm in by_lot for choice in _shares(arms, arm, keep, amount)]
    by_cost = sorted(saving, key=lambda choice: (choice.cost, -choice.kept.value))
    reached = [choice for choice in by_cost if choice.shown] or [c for c in by_cost if c.kept.value >= keep]
    return reached[0] if reached else None


def nearest(arms: Outcomes, running: Sequence[str], keep: float, amount: Amount) -> Choice | None:
    """The arm that keeps most of the teacher's accuracy, of those that cost less than it; of equals the cheapest."""
    saving = _choices(arms, running, keep, amount)
    return max(saving, key=lambda choice: (choice.kept.value, -choice.cost), default=None)


def mean_amount(rows: Mapping[str, Row], amount: Amount) -> float:
    """A question's, on average; 0 where there are no rows."""
    return sum(map(amount, rows.values())) / len(rows) if rows else 0.0


def _choices(arms: Outcomes, running: Sequence[str], keep: float, amount: Amount) -> list[Choice]:
    """All that save anything. Each is set against the teacher on its own questions, as an arm that was dropped has fewer."""
    choices = []
    for arm in dict.fromkeys([OFF, *running]):
        share = kept_share(*verdicts(arms, arm, TEACHER))
        if arm == TEACHER or share is None:
            continue
        same = {question: row for question, row in arms[TEACHER].items() if question in arms[arm]}
        cost = mean_amount(arms[arm], amount)
        if cost < mean_amount(same, amount):
            choices.append(Choice(arm, share, cost, share.low >= keep))
    return choices


def _shares(arms: Outcomes, arm: str, keep: float, amount: Amount) -> list[Choice]:
    """An arm for the least share of the questions whose lower bound is `keep`, and for the least whose estimate is."""
    same = arms[OFF].keys() & arms[arm].keys() & arms[TEACHER].keys()
    student, whole, teacher = (
        mean_amount({question: arms[name][question] for question in same}, amount) for name in (OFF, arm, TEACHER)
    )
    found: list[Choice] = []
    for share in SHARES:
        kept = kept_by_lot(arms, arm, share)
        cost = (1 - share) * student + share * whole
        if kept is None or cost >= teacher or (found and found[-1].shown):
            break
        shown = kept.low >= keep
        if shown or (kept.value >= keep and not found):
            found.append(Choice(arm, kept, cost, shown, share))
    return found


def _ratio(known: Floats, against: Sequence[float], *, quantile: float, undefined: float) -> float:
    means = resampled_means(np.vstack([known, against]), seed=SEED)
    some = means[:, 1] > 0
    ratios = np.full(len(means), undefined)
    ratios[some] = means[some, 0] / means[some, 1]
    # Not between two values: next to an infinite one there is no between.
    return float(np.quantile(ratios, quantile, method="lower" if quantile < 0.5 else "higher"))


def _better(arms: Outcomes, one: str, other: str, error: float) -> bool:
    """Whether `one` has more questions right, for all that the data can tell."""
    known = paired(*verdicts(arms, one, other)).verdicts
    gains = np.append(known[:, 0] - known[:, 1], -1.0).reshape(-1, 1)
    return bool(np.quantile(resampled_means(gains, seed=SEED)[:, 0], error) > 0)


def _cheaper(arms: Outcomes, one: str, other: str, amount: Amount, error: float) -> bool:
    """Whether `one` costs less a question, for all that the data can tell: Student's t, on the same questions."""
    same = [question for question in arms[one] if question in arms[other]]
    if len(same) < 2:
        return False
    more = np.array([amount(arms[other][question]) - amount(arms[one][question]) for question in same])
    spread = float(more.std(ddof=1)) / math.sqrt(len(more))
    return bool(float(more.mean()) - float(stats.t.ppf(1 - error, len(more) - 1)) * spread > 0)
