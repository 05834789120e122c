"""A policy file made of an arm and of what it reached on the reporting lines."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from evaluation.lab.analysis.statistics import Floats, mean_interval, paired, wilson
from evaluation.lab.arm_names import OFF, TEACHER
from evaluation.lab.arms import Arm
from evaluation.lab.errors import Unsound
from evaluation.lab.results.rows import Row, verdicts
from evaluation.lab.tuning import racing
from evaluation.lab.tuning.tuner import Tuner
from shared.policy_file import Estimate, Evidence, PolicyFile
from shared.protocol.gkt import Mode

MAX_NAME = 100


def policy_of(choice: racing.Choice, rows: Sequence[Row], tuner: Tuner, name: str | None = None) -> PolicyFile:
    """`rows` are those of the reporting lines. Raises Unsound where the teacher has none of these right."""
    task = tuner.tuning.task.name
    arm = Arm.parse(choice.arm).for_share(choice.share)
    return PolicyFile(
        name=(name or f"{task} {arm.text}")[:MAX_NAME],
        mode=Mode(arm.kind),
        max_guidance_tokens=arm.values.get("tokens"),
        **arm.wishes,
        evidence=_evidence(choice.arm, choice.share, rows, tuner),
    )


def _evidence(arm: str, share: float, rows: Sequence[Row], tuner: Tuner) -> Evidence:
    arms = racing.sound(rows)
    for name in (OFF, arm, TEACHER):
        arms.setdefault(name, {})
    # All figures are of the same questions.
    same = [question for question in arms[TEACHER] if question in arms[OFF] and question in arms[arm]]
    arms = {name: {question: arms[name][question] for question in same} for name in (OFF, arm, TEACHER)}
    known = paired(*verdicts(arms, OFF, TEACHER, arm)).verdicts
    kept = racing.kept_by_lot(arms, arm, share)
    if kept is None:
        raise Unsound(f"the teacher has no reporting question right (of {len(known)}): there is nothing to keep")
    student, teacher, whole = (_estimate(int(right), len(known)) for right in known.sum(axis=0))
    prices = tuner.prices()
    seen = tuner.seen()
    plan = tuner.file.plan
    return Evidence(
        task=plan.task,
        data_sha256=plan.data_sha256,
        tuning_lines=_asked(tuner.tuning.lines.first, plan.tune_questions),
        reporting_lines=_asked(tuner.reporting.lines.first, plan.report_questions),
        n=len(known),
        student=seen.student,
        teacher=seen.teacher or "unknown",
        keep=plan.keep,
        accuracy_student=student,
        accuracy_teacher=teacher,
        accuracy_policy=whole if share == 1 else _average((1 - share) * known[:, 0] + share * known[:, 2]),
        kept_share=kept.value,
        kept_share_low=kept.low,
        shown=kept.low >= plan.keep,
        teacher_token_share=share * _share(arms, arm, lambda row: row.teacher.output),
        cost_share=share * _share(arms, arm, lambda row: row.teacher.cost_usd(prices)),
        date=datetime.datetime.now(datetime.UTC).date(),
        gkt_version=_version(),
    )


def _estimate(right: int, n: int) -> Estimate:
    interval = wilson(right, n)
    assert interval is not None  # noqa: S101 - n is positive where a share was kept
    return Estimate(value=right / n, low=interval.low, high=interval.high)


def _average(values: Floats) -> Estimate:
    """Of what the answers are worth on average over the lots: no numbers of right ones, so by a bootstrap."""
    interval = mean_interval(values)
    assert interval is not None  # noqa: S101 - as above
    return Estimate(value=float(values.mean()), low=interval.low, high=interval.high)


def _share(arms: racing.Outcomes, arm: str, amount: racing.Amount) -> float:
    """Of the teacher's; 0 where even that is nothing."""
    whole = racing.mean_amount(arms[TEACHER], amount)
    return racing.mean_amount(arms[arm], amount) / whole if whole else 0.0


def _asked(first: int, questions: int) -> str:
    """The lines that were really asked, `--limit` included."""
    return f"{first}-{first + questions - 1}"


def _version() -> str:
    try:
        return version("gkt")
    except PackageNotFoundError:
        return "unknown"
