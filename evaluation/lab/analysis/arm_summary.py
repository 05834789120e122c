"""What each arm reached on each task, and what it took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from evaluation import figures
from evaluation.lab.analysis import pareto
from evaluation.lab.analysis.margins import Margin, margins
from evaluation.lab.analysis.statistics import Interval, Recovery, gap_recovered, wilson
from evaluation.lab.arm_names import OFF, TEACHER, in_order, is_plain
from evaluation.lab.results.rows import Arms, Row, verdicts
from shared.prices import Prices

FEW_QUESTIONS = 100
"""With fewer, an accuracy's interval is some twenty points wide."""


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """Means are a question, over the rows without an error. None where there is nothing to take them over."""

    arm: str
    questions: int
    n: int
    """Questions with a verdict."""
    accuracy: float | None
    interval: Interval | None
    """Wilson's."""
    no_answer_share: float | None
    """Of the verdicts: answers that could not be read, which are wrong."""
    errors: int
    fallbacks: int
    teacher_output_tokens: float | None
    teacher_computed_tokens: float | None
    """Prompt tokens that the teacher computed."""
    teacher_cached_tokens: float | None
    """Prompt tokens that it read from its prefix cache."""
    student_output_tokens: float | None
    calls: float | None
    """Requests to the cloud."""
    cost_usd: float | None
    teacher_token_share: float | None
    """Output tokens of the teacher over those of the arm `teacher` on the same questions."""
    cost_share: float | None
    """Likewise."""
    recovery: Recovery | None
    first_token_p50_s: float | None
    p50_s: float | None
    p95_s: float | None
    bytes: float | None
    """Bodies over the link, both ways."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    task: str
    arms: tuple[ArmSummary, ...]
    front_by_cost: tuple[str, ...]
    """Arms that no other beats in accuracy at their cost, the cheapest first."""
    front_by_tokens: tuple[str, ...]
    """Likewise by the teacher's output tokens."""
    hull_by_cost: tuple[str, ...]
    """Corners of the plain arms' convex hull, the cheapest first."""
    margins_by_cost: Mapping[str, Margin]
    """Of policies over mixtures of plain arms, and of plain arms over mixtures of student, teacher and policies."""
    margins_by_tokens: Mapping[str, Margin]
    warnings: tuple[str, ...]
    rows: Arms

    def arm(self, name: str) -> ArmSummary:
        """Raises KeyError where there is no such arm."""
        for arm in self.arms:
            if arm.arm == name:
                return arm
        raise KeyError(name)


def by_task(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, Row]]]:
    """Rows by task, arm and question. The arms of a task are in the order of `in_order`; the last row of a question counts."""
    tasks: dict[str, dict[str, dict[str, Row]]] = {}
    for row in rows:
        tasks.setdefault(row.task, {}).setdefault(row.arm, {})[row.question_id] = row
    return {task: {arm: arms[arm] for arm in in_order(arms)} for task, arms in tasks.items()}


def summarise(rows: Iterable[Row], prices: Prices) -> list[TaskSummary]:
    """One summary a task, in the order in which the tasks come."""
    return [_task(task, arms, prices) for task, arms in by_task(rows).items()]


def _task(task: str, arms: Arms, prices: Prices) -> TaskSummary:
    summaries = tuple(_arm(name, arms, prices) for name in arms)
    by_cost = {arm.arm: _point(arm.cost_usd, arm) for arm in summaries}
    by_tokens = {arm.arm: _point(arm.teacher_output_tokens, arm) for arm in summaries}
    return TaskSummary(
        task=task,
        arms=summaries,
        front_by_cost=_picked(pareto.pareto, by_cost),
        front_by_tokens=_picked(pareto.pareto, by_tokens),
        hull_by_cost=_picked(pareto.hull, {arm: point for arm, point in by_cost.items() if is_plain(arm)}),
        margins_by_cost=margins(arms, by_cost),
        margins_by_tokens=margins(arms, by_tokens),
        warnings=tuple(_warnings(arms, summaries)),
        rows=arms,
    )


def _arm(name: str, arms: Arms, prices: Prices) -> ArmSummary:
    rows = list(arms[name].values())
    judged = [row for row in rows if row.correct is not None]
    right = sum(row.correct is True for row in judged)
    sound = [row for row in rows if row.error is None]
    recovery = gap_recovered(*verdicts(arms, OFF, name, TEACHER)) if {OFF, TEACHER} <= arms.keys() else None
    return ArmSummary(
        arm=name,
        questions=len(rows),
        n=len(judged),
        accuracy=_mean([float(row.correct is True) for row in judged]),
        interval=wilson(right, len(judged)),
        no_answer_share=_mean([float(row.extracted is None and not row.correct) for row in judged]),
        errors=len(rows) - len(sound),
        fallbacks=sum(row.fallback is not None for row in rows),
        teacher_output_tokens=_mean([row.teacher.output for row in sound]),
        teacher_computed_tokens=_mean([row.teacher.prompt - row.teacher.cached for row in sound]),
        teacher_cached_tokens=_mean([row.teacher.cached for row in sound]),
        student_output_tokens=_mean([row.student.output for row in sound]),
        calls=_mean([row.teacher.calls for row in sound]),
        cost_usd=_mean([row.teacher.cost_usd(prices) for row in sound]),
        teacher_token_share=_share(name, arms, lambda row: row.teacher.output),
        cost_share=_share(name, arms, lambda row: row.teacher.cost_usd(prices)),
        recovery=recovery,
        first_token_p50_s=_statistic(figures.median, [row.first_token_s for row in sound]),
        p50_s=_statistic(figures.median, [row.total_s for row in sound]),
        p95_s=_statistic(figures.p95, [row.total_s for row in sound]),
        bytes=_mean([row.bytes_sent + row.bytes_received for row in sound]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _statistic(of: Callable[[Sequence[float]], float], values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return of(known) if known else None


def _share(name: str, arms: Arms, amount: Callable[[Row], float]) -> float | None:
    """Of what the teacher alone takes, over the questions that went well under both."""
    pairs = [
        (row, whole)
        for question, row in arms[name].items()
        if row.error is None and (whole := arms.get(TEACHER, {}).get(question)) and whole.error is None
    ]
    below = sum(amount(whole) for _, whole in pairs)
    return sum(amount(row) for row, _ in pairs) / below if below else None


def _point(cost: float | None, arm: ArmSummary) -> pareto.Point | None:
    return None if cost is None or arm.accuracy is None else pareto.Point(cost, arm.accuracy)


def _picked(
    pick: Callable[[Sequence[pareto.Point]], list[int]], points: Mapping[str, pareto.Point | None]
) -> tuple[str, ...]:
    known = {arm: point for arm, point in points.items() if point}
    names = list(known)
    return tuple(names[at] for at in pick(list(known.values())))


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
