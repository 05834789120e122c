"""Many simulated experiments at once, each looked at after every 25 outcomes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from cloud_teacher.experiments.comparison import MIN_UNITS, excludes
from cloud_teacher.experiments.simulation.workloads import Workload
from cloud_teacher.experiments.statistics import sample_ratio
from cloud_teacher.experiments.statistics.sums import Flags, Floats, Sums

OUTCOMES_PER_LOOK = 25
ALPHA = 0.05
TUNING_UNITS = 1000
USER_EFFECT = 0.05
"""Standard deviation of users' own means."""

COLLECTING, BETTER, WORSE, NO_DIFFERENCE = range(4)
"""Verdicts of simulated experiments."""


class Power(NamedTuple):
    """Verdicts on a treatment with a known effect. Shares of the runs, and the median of the outcomes that a verdict took."""

    workload: str
    effect: float
    better: float
    worse: float
    no_difference: float
    undecided: float
    outcomes: float | None


class _Stream(Protocol):
    def look(self) -> tuple[Sums, Sums]:
        """Draw the next outcomes of every run; return the sums of treatment and control."""

    def keep(self, runs: Flags) -> None:
        """Drop the other runs."""


class _Requests:
    """Each answer is a unit."""

    def __init__(self, workload: Workload, runs: int, effect: float, rng: np.random.Generator) -> None:
        self._workload, self._effect, self._rng = workload, effect, rng
        self._sums = np.zeros((2, 6, runs))

    def look(self) -> tuple[Sums, Sums]:
        treated = self._rng.random((self._sums.shape[2], OUTCOMES_PER_LOOK)) < 0.5
        x, y = self._workload.draw(self._rng, np.where(treated, self._effect, 0.0))
        terms = np.stack([np.ones_like(x), x, x * x, y, y * y, x * y])
        self._sums[0] += (terms * treated).sum(axis=-1)
        self._sums[1] += (terms * ~treated).sum(axis=-1)
        return Sums(*self._sums[0]), Sums(*self._sums[1])

    def keep(self, runs: Flags) -> None:
        self._sums = self._sums[:, :, runs]


class _Users:
    """Users ask many times, each in the arm of their own; a few ask most."""

    def __init__(self, workload: Workload, runs: int, effect: float, rng: np.random.Generator) -> None:
        self._workload, self._effect, self._rng = workload, effect, rng
        self._treated = rng.random((runs, workload.users)) < 0.5
        self._own = rng.normal(0.0, USER_EFFECT, (runs, workload.users))
        self._answers = np.zeros((runs, workload.users))
        self._totals = np.zeros((runs, workload.users))
        activity = 1 / np.arange(1, workload.users + 1)
        self._cumulated = np.cumsum(activity / activity.sum())

    def look(self) -> tuple[Sums, Sums]:
        rows = np.arange(len(self._answers))[:, np.newaxis]
        draws = self._rng.random((len(rows), OUTCOMES_PER_LOOK))
        users = np.minimum(np.searchsorted(self._cumulated, draws), len(self._cumulated) - 1)
        x, _ = self._workload.draw(self._rng, np.where(self._treated[rows, users], self._effect, 0.0))
        np.add.at(self._answers, (rows, users), 1.0)
        np.add.at(self._totals, (rows, users), x + self._own[rows, users])
        seen = self._answers > 0
        means = np.divide(self._totals, self._answers, out=np.zeros_like(self._totals), where=seen)
        return self._arm(seen & self._treated, means), self._arm(seen & ~self._treated, means)

    def _arm(self, members: Flags, means: Floats) -> Sums:
        x = means * members
        return Sums(members.sum(axis=1).astype(np.float64), x.sum(axis=1), np.einsum("ij,ij->i", x, x))

    def keep(self, runs: Flags) -> None:
        self._treated, self._own = self._treated[runs], self._own[runs]
        self._answers, self._totals = self._answers[runs], self._totals[runs]


def false_positive_rate(workload: Workload, *, runs: int, outcomes: int, seed: int) -> float:
    """Return the share of A/A experiments that ever show a difference."""
    stream = _stream(workload, runs, 0.0, seed)
    remaining = runs
    for _ in range(outcomes // OUTCOMES_PER_LOOK):
        sums = stream.look()
        quiet = ~(_enough(*sums) & _excludes(workload, sums, 0.0))
        if not quiet.all():
            stream.keep(quiet)
            remaining = int(quiet.sum())
    return 1 - remaining / runs


def power(workload: Workload, effect: float, *, runs: int, outcomes: int, seed: int) -> Power:
    """Run experiments with an effect until each has a verdict, or all its outcomes."""
    stream = _stream(workload, runs, effect, seed)
    looks: list[int] = []
    counts = dict.fromkeys((BETTER, WORSE, NO_DIFFERENCE), 0)
    for look in range(1, outcomes // OUTCOMES_PER_LOOK + 1):
        found = verdicts(workload, stream.look())
        decided = found != COLLECTING
        for verdict in counts:
            counts[verdict] += int((found == verdict).sum())
        looks += [look] * int(decided.sum())
        if decided.all():
            break
        stream.keep(~decided)
    return Power(
        workload.name,
        effect,
        better=counts[BETTER] / runs,
        worse=counts[WORSE] / runs,
        no_difference=counts[NO_DIFFERENCE] / runs,
        undecided=1 - len(looks) / runs,
        outcomes=float(np.median(looks)) * OUTCOMES_PER_LOOK if looks else None,
    )


def ratio_false_alarm_rate(shares: tuple[int, ...], *, runs: int, outcomes: int, seed: int) -> float:
    """Return the share of experiments with the intended shares that ever raise the sample-ratio alarm."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((runs, len(shares)))
    alarmed = np.zeros(runs, np.bool_)
    for _ in range(outcomes // OUTCOMES_PER_LOOK):
        counts += rng.multinomial(OUTCOMES_PER_LOOK, np.array(shares) / sum(shares), size=runs)
        alarmed |= sample_ratio.p_value(counts, shares) < sample_ratio.ALARM
    return float(alarmed.mean())


def _stream(workload: Workload, runs: int, effect: float, seed: int) -> _Stream:
    rng = np.random.default_rng(seed)
    return (_Users if workload.users else _Requests)(workload, runs, effect, rng)


def verdicts(workload: Workload, sums: tuple[Sums, Sums]) -> npt.NDArray[np.int64]:
    """Return the verdict of each run: that of `verdict.assess`, without guardrails."""
    treatment, control = sums
    enough = _enough(treatment, control)
    effect = workload.metric.better.sign * (_value(workload, treatment) - _value(workload, control))
    smallest = workload.metric.smallest_effect
    equal = _excludes(workload, sums, smallest) & _excludes(workload, sums, -smallest)
    differs = _excludes(workload, sums, 0.0)
    # An interval that lies within the smallest effect excludes both ends of it, from the inside.
    inside = equal & (np.abs(effect) < smallest)
    verdicts = np.select(
        [~enough, differs & (effect > 0), differs, inside], [COLLECTING, BETTER, WORSE, NO_DIFFERENCE], COLLECTING
    )
    return verdicts.astype(np.int64)


def _enough(treatment: Sums, control: Sums) -> Flags:
    return np.asarray(np.minimum(treatment.units, control.units) >= MIN_UNITS)


def _excludes(workload: Workload, sums: tuple[Sums, Sums], value: float) -> Flags:
    return excludes(workload.metric, *sums, value, alpha=ALPHA, tuning_units=TUNING_UNITS)


def _value(workload: Workload, sums: Sums) -> Floats:
    divisor = sums.per_total if workload.metric.per else sums.units
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.divide(sums.total, divisor))
