"""The rollout controller: a pure function of the experiment, its data and the time. It returns a decision with its numbers.

Order of the rules: harm ends a rollout even if the data is unhealthy, because going back is always safe. Unhealthy data and
signal metrics pause it. A step ends after its shortest duration, when each arm has its new units and every guardrail is shown to
be safe. A treatment is shipped after the last step only: small shares do not show what load does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from cloud_teacher.experiments.comparison import GuardrailCheck
from cloud_teacher.experiments.health import ExperimentData
from cloud_teacher.experiments.verdict import (
    Assessment,
    TreatmentResult,
    VerdictKind,
    assess,
    describe,
    describe_harm,
)
from shared.experiments.definition import Experiment, NoDifference, Status


class Action(StrEnum):
    WAIT = "wait"
    ADVANCE = "advance"
    PAUSE = "pause"
    ROLL_BACK = "roll_back"
    SHIP = "ship"


@dataclass(frozen=True, slots=True)
class Step:
    """The present step of the ramp: its begin, and the units that each arm had then."""

    began: datetime
    units_before: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    action: Action
    reason: str
    percent: int
    """Step of the ramp after the decision."""
    arm: str | None = None
    """Arm that is shipped, or whose data decided."""
    numbers: Mapping[str, object] = field(default_factory=dict)
    """The assessment behind the decision, as it is logged."""


def decide(experiment: Experiment, data: ExperimentData, step: Step, now: datetime) -> Decision:
    """Return what the rollout does now. A clock that jumps back makes it wait."""
    if experiment.status is not Status.RUNNING:
        return Decision(Action.WAIT, f"the experiment is {experiment.status}", experiment.percent)
    assessment = assess(experiment, data)
    action, reason, arm = (
        _harm(experiment, assessment)
        or _pause(experiment, assessment)
        or _step(experiment, data, step, now, assessment)
        or _end(experiment, assessment)
    )
    percent = experiment.next_step() if action is Action.ADVANCE else experiment.percent
    return Decision(action, reason, percent or experiment.percent, arm, assessment.numbers())


def apply(experiment: Experiment, decision: Decision) -> Experiment:
    """Return the experiment as the decision leaves it."""
    changes: dict[str, object] = {"percent": decision.percent}
    match decision.action:
        case Action.WAIT | Action.ADVANCE:
            pass
        case Action.PAUSE:
            changes["status"] = Status.PAUSED
        case Action.ROLL_BACK:
            changes["status"] = Status.ROLLED_BACK
        case Action.SHIP:
            changes |= {"status": Status.SHIPPED, "winner": decision.arm}
    return Experiment.model_validate({**dict(experiment), **changes})


_Rule = tuple[Action, str, str | None]


def _harm(experiment: Experiment, assessment: Assessment) -> _Rule | None:
    if experiment.aa:
        return None
    for result in assessment.results:
        if binding := [check for check in result.harmed if not check.guardrail.signal]:
            return Action.ROLL_BACK, describe_harm(binding[0]), result.arm
        if result.verdict.kind is VerdictKind.ROLL_BACK:
            return Action.ROLL_BACK, result.verdict.detail, result.arm
    return None


def _pause(experiment: Experiment, assessment: Assessment) -> _Rule | None:
    for result in assessment.results:
        if result.verdict.kind is VerdictKind.UNHEALTHY:
            return Action.PAUSE, str(result.verdict), result.arm
        for check in result.harmed:
            if check.guardrail.signal and check.guardrail.key not in experiment.muted_signals:
                return Action.PAUSE, f"signal: {describe_harm(check)}", result.arm
    return None


def _step(
    experiment: Experiment, data: ExperimentData, step: Step, now: datetime, assessment: Assessment
) -> _Rule | None:
    """Wait for the step's end, then advance; None at the end of the last step."""
    elapsed = (now - step.began).total_seconds()
    if elapsed < experiment.step_s:
        return Action.WAIT, f"the step lasts {experiment.step_s:g} s; {max(elapsed, 0.0):.0f} s have passed", None
    for name in experiment.arm_names:
        new = data.arm(name).units - step.units_before.get(name, 0)
        if new < experiment.step_units:
            return Action.WAIT, f"arm {name!r} has {new} new units of {experiment.step_units}", name
    for result in assessment.results:
        if result.undecided and not experiment.aa:
            return Action.WAIT, f"guardrails are undecided: {_waiting(result.undecided)}", result.arm
    following = experiment.next_step()
    if following is None:
        return None
    return Action.ADVANCE, f"from {experiment.percent} to {following} %: enough data, and no guardrail is harmed", None


def _end(experiment: Experiment, assessment: Assessment) -> _Rule:
    """Decide after the last step."""
    collecting = [result for result in assessment.results if result.verdict.kind is VerdictKind.COLLECTING]
    if experiment.aa or collecting:
        verdict = collecting[0].verdict if collecting else assessment.results[0].verdict
        return Action.WAIT, str(verdict), collecting[0].arm if collecting else None
    better = [result for result in assessment.results if result.verdict.kind is VerdictKind.SHIP]
    if better:
        best = max(better, key=lambda result: _benefit(experiment, result))
        return Action.SHIP, describe(best.primary), best.arm
    equal = assessment.results[0]
    action = {
        NoDifference.PAUSE: Action.PAUSE,
        NoDifference.SHIP: Action.SHIP,
        NoDifference.ROLL_BACK: Action.ROLL_BACK,
    }[experiment.on_no_difference]
    return action, str(equal.verdict), equal.arm


def _benefit(experiment: Experiment, result: TreatmentResult) -> float:
    return experiment.primary.better.sign * (result.primary.difference or 0.0)


def _waiting(checks: tuple[GuardrailCheck, ...]) -> str:
    parts = []
    for check in checks:
        more = check.comparison.more_units
        parts.append(check.comparison.metric + ("" if more is None else f" (about {more:,} more units)"))
    return ", ".join(parts)
