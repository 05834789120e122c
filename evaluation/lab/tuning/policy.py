"""A policy file made of a candidate and of its results on the reporting lines."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from evaluation.lab.analysis.arm_summary import summarise
from evaluation.lab.analysis.statistics import Interval, mean_interval, paired
from evaluation.lab.arm_names import OFF, TEACHER
from evaluation.lab.arms import Arm
from evaluation.lab.errors import InvalidStage
from evaluation.lab.results.rows import Row, verdicts
from evaluation.lab.tuning import racing
from evaluation.lab.tuning.tuner import Tuner
from shared.policy_file import Estimate, Evidence, PolicyFile

MAX_NAME = 100


def policy_of(candidate: racing.Candidate, rows: Sequence[Row], tuner: Tuner, name: str | None = None) -> PolicyFile:
    """Return the policy with its evidence. `rows` are those of the reporting lines.

    Raises InvalidStage if the teacher has none of them right.
    """
    task = tuner.tuning.task.name
    arm = Arm.parse(candidate.arm).with_rollout(candidate.rollout_fraction)
    return PolicyFile(
        name=(name or f"{task} {arm.text}")[:MAX_NAME],
        mode=arm.kind,
        **arm.policy,
        evidence=_evidence(candidate.arm, candidate.rollout_fraction, rows, tuner),
    )


def _evidence(arm: str, fraction: float, rows: Sequence[Row], tuner: Tuner) -> Evidence:
    valid = racing.valid_rows(rows)
    names = (OFF, TEACHER, arm)
    # All figures are of the same questions.
    same = [question for question in valid.get(TEACHER, {}) if all(question in valid.get(name, {}) for name in names)]
    arms = {name: {question: valid[name][question] for question in same} for name in names if name in valid}
    kept = racing.rollout_retention(arms, arm, fraction) if same else None
    if kept is None:
        raise InvalidStage(f"the teacher has none of {len(same)} reporting questions right: no accuracy can be kept")
    (task,) = summarise([row for of_arm in arms.values() for row in of_arm.values()], tuner.prices())
    student, teacher, whole = task.arm(OFF), task.arm(TEACHER), task.arm(arm)
    policy = _estimate(whole.accuracy, whole.interval)
    if fraction < 1:
        # The policy's correctness is an expectation then, so its interval is a bootstrap's.
        expected = paired(*verdicts(arms, OFF, arm)).verdicts @ np.array([1 - fraction, fraction])
        policy = _estimate(float(expected.mean()), mean_interval(expected))
    models, spec = tuner.models(), tuner.spec
    return Evidence(
        task=spec.task,
        data_sha256=spec.data_sha256,
        tuning_lines=_lines(tuner.tuning.data.lines.first, spec.tuning_questions),
        reporting_lines=_lines(tuner.reporting.data.lines.first, spec.reporting_questions),
        n=kept.n,
        student=models.student,
        teacher=models.teacher or "unknown",
        keep=spec.keep,
        accuracy_student=_estimate(student.accuracy, student.interval),
        accuracy_teacher=_estimate(teacher.accuracy, teacher.interval),
        accuracy_policy=policy,
        kept_share=kept.value,
        kept_share_low=kept.low,
        shown=kept.low >= spec.keep,
        teacher_token_share=fraction * (whole.teacher_token_share or 0.0),
        cost_share=fraction * (whole.cost_share or 0.0),
        date=datetime.datetime.now(datetime.UTC).date(),
        gkt_version=_version(),
    )


def _estimate(value: float | None, interval: Interval | None) -> Estimate:
    assert value is not None and interval is not None  # noqa: S101, PT018 - there are questions
    return Estimate(value=value, low=interval.low, high=interval.high)


def _lines(first: int, questions: int) -> str:
    """Return the lines whose questions were asked, which a limit may have cut."""
    return f"{first}-{first + questions - 1}"


def _version() -> str:
    try:
        return version("gkt")
    except PackageNotFoundError:
        return "unknown"
