"""Accuracy and cost of each arm on each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from evaluation import figures
from evaluation.lab.analysis.margins import Margin, margins
from evaluation.lab.analysis.pareto import Point, hull, pareto
from evaluation.lab.analysis.statistics import Interval, Recovery, gap_recovered, wilson
from evaluation.lab.arm_names import OFF, TEACHER, in_order, is_plain
from evaluation.lab.results.rows import Arms, Row, verdicts
from shared.prices import Prices

FEW_QUESTIONS = 100
"""With fewer questions, an accuracy's interval is some twenty points wide."""


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """Figures of an arm. Means are per question, over the rows without an error; None without such rows.

    n: questions with a verdict. `accuracy` and Wilson's `interval` are of these.
    no_answer_share: fraction of the verdicts on answers that could not be read, which are wrong.
    teacher_computed_tokens, teacher_cached_tokens: prompt tokens that the teacher computed, and read from its prefix cache.
    calls: requests to the cloud.
    teacher_token_share, cost_share: the arm's output tokens and cost divided by those of `teacher` on the same questions.
    bytes: request and response bodies between edge and cloud.
    """

    arm: str
    questions: int
    n: int
    accuracy: float | None
    interval: Interval | None
    no_answer_share: float | None
    errors: int
    fallbacks: int
    teacher_output_tokens: float | None
    teacher_computed_tokens: float | None
    teacher_cached_tokens: float | None
    student_output_tokens: float | None
    calls: float | None
    cost_usd: float | None
    teacher_token_share: float | None
    cost_share: float | None
    recovery: Recovery | None
    first_token_p50_s: float | None
    p50_s: float | None
    p95_s: float | None
    bytes: float | None


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """The arms of a task, and how they stand against each other.

    front_by_cost, front_by_tokens: arms that no other arm beats in accuracy at their cost, or at their number of the teacher's
    output tokens; the cheapest comes first.
    hull_by_cost: corners of the plain arms' convex hull, the cheapest first.
    margins_by_cost, margins_by_tokens: distance of each arm above mixtures of others, as `margins` computes it.
    """

    task: str
    arms: tuple[ArmSummary, ...]
    front_by_cost: tuple[str, ...]
    front_by_tokens: tuple[str, ...]
    hull_by_cost: tuple[str, ...]
    margins_by_cost: Mapping[str, Margin]
    margins_by_tokens: Mapping[str, Margin]
    warnings: tuple[str, ...]
    rows: Arms

    def arm(self, name: str) -> ArmSummary:
        """Raises KeyError if there is no such arm."""
        return {arm.arm: arm for arm in self.arms}[name]


def by_task(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, Row]]]:
    """Return rows by task, arm and question. The arms have the order of `in_order`; the last row of a question counts."""
    tasks: dict[str, dict[str, dict[str, Row]]] = {}
    for row in rows:
        tasks.setdefault(row.task, {}).setdefault(row.arm, {})[row.question_id] = row
    return {task: {arm: arms[arm] for arm in in_order(arms)} for task, arms in tasks.items()}


def summarise(rows: Iterable[Row], prices: Prices) -> list[TaskSummary]:
    """Return a summary of each task, ordered by when the tasks first come."""
    return [_task(task, arms, prices) for task, arms in by_task(rows).items()]


def _task(task: str, arms: Arms, prices: Prices) -> TaskSummary:
    summaries = tuple(_arm(name, arms, prices) for name in arms)
    known = [arm for arm in summaries if arm.accuracy is not None]
    by_cost = {arm.arm: Point(arm.cost_usd, arm.accuracy or 0) for arm in known if arm.cost_usd is not None}
    by_tokens = {
        arm.arm: Point(arm.teacher_output_tokens or 0, arm.accuracy or 0) for arm in known if arm.arm in by_cost
    }
    return TaskSummary(
        task=task,
        arms=summaries,
        front_by_cost=tuple(pareto(by_cost)),
        front_by_tokens=tuple(pareto(by_tokens)),
        hull_by_cost=tuple(hull({arm: point for arm, point in by_cost.items() if is_plain(arm)})),
        margins_by_cost=margins(arms, by_cost),
        margins_by_tokens=margins(arms, by_tokens),
        warnings=tuple(_warnings(arms, summaries)),
        rows=arms,
    )


def _arm(name: str, arms: Arms, prices: Prices) -> ArmSummary:
    rows = list(arms[name].values())
    judged = [row for row in rows if row.correct is not None]
    sound = [row for row in rows if row.error is None]

    def mean(amount: Callable[[Row], float], of: Sequence[Row] = sound) -> float | None:
        return sum(map(amount, of)) / len(of) if of else None

    def share(amount: Callable[[Row], float]) -> float | None:
        """Divide by the teacher's amount, over the questions without an error under both."""
        whole = {question: row for question, row in arms.get(TEACHER, {}).items() if row.error is None}
        same = [row for row in sound if row.question_id in whole]
        below = sum(amount(whole[row.question_id]) for row in same)
        return sum(map(amount, same)) / below if below else None

    totals = [row.total_s for row in sound if row.total_s is not None]
    first_tokens = [row.first_token_s for row in sound if row.first_token_s is not None]
    return ArmSummary(
        arm=name,
        questions=len(rows),
        n=len(judged),
        accuracy=mean(lambda row: row.correct is True, judged),
        interval=wilson(sum(row.correct is True for row in judged), len(judged)),
        no_answer_share=mean(lambda row: row.extracted is None and not row.correct, judged),
        errors=len(rows) - len(sound),
        fallbacks=sum(row.fallback is not None for row in rows),
        teacher_output_tokens=mean(lambda row: row.teacher.output),
        teacher_computed_tokens=mean(lambda row: row.teacher.prompt - row.teacher.cached),
        teacher_cached_tokens=mean(lambda row: row.teacher.cached),
        student_output_tokens=mean(lambda row: row.student.output),
        calls=mean(lambda row: row.teacher.calls),
        cost_usd=mean(lambda row: row.teacher.cost_usd(prices)),
        teacher_token_share=share(lambda row: row.teacher.output),
        cost_share=share(lambda row: row.teacher.cost_usd(prices)),
        recovery=gap_recovered(*verdicts(arms, OFF, name, TEACHER)) if {OFF, TEACHER} <= arms.keys() else None,
        first_token_p50_s=figures.median(first_tokens) if first_tokens else None,
        p50_s=figures.median(totals) if totals else None,
        p95_s=figures.p95(totals) if totals else None,
        bytes=mean(lambda row: row.bytes_sent + row.bytes_received),
    )


def _warnings(arms: Arms, summaries: Sequence[ArmSummary]) -> Iterable[str]:
    missing = [name for name in (OFF, TEACHER) if name not in arms]
    if missing:
        yield f"no arm {' and '.join(missing)}: the shares and the gap recovered that need it are unknown"
    asked = len({question for rows in arms.values() for question in rows})
    for arm in summaries:
        if arm.questions < asked:
            yield f"{arm.arm}: has only {arm.questions} of {asked} questions, so its accuracy is of others than the rest"
        if arm.n < arm.questions:
            yield f"{arm.arm}: no verdict on {arm.questions - arm.n} of {arm.questions} questions; {arm.errors} failed"
        if arm.fallbacks:
            yield f"{arm.arm}: fell back to the student on {arm.fallbacks} of {arm.questions} questions"
    if asked < FEW_QUESTIONS:
        yield f"{asked} questions are few: enough to choose a direction, not to claim"
    yield from dict.fromkeys(warning for arm in summaries if arm.recovery for warning in arm.recovery.warnings)
