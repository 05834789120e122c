"""Verdicts: a few words about each treatment, and the numbers behind them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloud_teacher.experiments.comparison import (
    ArmData,
    Comparison,
    GuardrailCheck,
    Number,
    Standing,
    check_guardrail,
    compare_primary,
)
from cloud_teacher.experiments.health import ExperimentData, Health, check_health
from shared.experiments.definition import Experiment
from shared.experiments.metrics import PrimaryMetric


class VerdictKind(StrEnum):
    COLLECTING = "collecting"
    UNHEALTHY = "unhealthy"
    SHIP = "ship"
    ROLL_BACK = "roll_back"
    NO_DIFFERENCE = "no_difference"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict on one treatment."""

    kind: VerdictKind
    detail: str = ""
    more_units: int | None = None

    def __str__(self) -> str:
        match self.kind:
            case VerdictKind.COLLECTING:
                about = "" if self.more_units is None else f", about {self.more_units:,} more"
                return f"collecting{about}" + (f" ({self.detail})" if self.detail else "")
            case VerdictKind.NO_DIFFERENCE:
                return f"no difference within {self.detail}"
            case _:
                words = self.kind.replace("_", " ")
                return f"{words}: {self.detail}" if self.detail else words


@dataclass(frozen=True, slots=True)
class TreatmentResult:
    """All comparisons of a treatment with the control, and the verdict they give."""

    arm: str
    primary: Comparison
    guardrails: tuple[GuardrailCheck, ...]
    verdict: Verdict

    @property
    def harmed(self) -> tuple[GuardrailCheck, ...]:
        return tuple(check for check in self.guardrails if check.standing is Standing.HARMED)

    @property
    def undecided(self) -> tuple[GuardrailCheck, ...]:
        """Guardrails that a step waits for."""
        return tuple(
            check for check in self.guardrails if check.standing is Standing.UNDECIDED and not check.guardrail.signal
        )

    def numbers(self) -> dict[str, object]:
        return {
            "arm": self.arm,
            "verdict": str(self.verdict),
            "primary": self.primary.numbers(),
            "guardrails": [check.numbers() for check in self.guardrails],
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """State of an experiment: its health, and a result for each treatment."""

    health: Health
    results: tuple[TreatmentResult, ...]

    def numbers(self) -> dict[str, object]:
        return {
            "sample_ratio_p": self.health.sample_ratio_p,
            "problems": list(self.health.problems),
            "treatments": [result.numbers() for result in self.results],
        }


def assess(experiment: Experiment, data: ExperimentData) -> Assessment:
    """Compare all treatments with the control. It may be called after every outcome."""
    health = check_health(experiment, data)
    control = data.arm(experiment.control)
    return Assessment(
        health, tuple(_assess_arm(experiment, health, name, data.arm(name), control) for name in experiment.treatments)
    )


def _assess_arm(
    experiment: Experiment, health: Health, name: str, treatment: ArmData, control: ArmData
) -> TreatmentResult:
    primary = compare_primary(experiment, treatment, control)
    guardrails = tuple(
        check_guardrail(experiment, guardrail, treatment, control) for guardrail in experiment.guardrails
    )
    return TreatmentResult(name, primary, guardrails, _verdict(experiment, health, primary, guardrails))


def _verdict(
    experiment: Experiment, health: Health, primary: Comparison, guardrails: tuple[GuardrailCheck, ...]
) -> Verdict:
    if health.problems:
        return Verdict(VerdictKind.UNHEALTHY, "; ".join(health.problems))
    better, worse = _shown(experiment.primary, primary)
    if experiment.aa and (better or worse):
        return Verdict(VerdictKind.UNHEALTHY, f"the arms are equal, yet they differ: {describe(primary)}")
    binding = [check for check in guardrails if not check.guardrail.signal]
    if harmed := [check for check in binding if check.standing is Standing.HARMED]:
        return Verdict(VerdictKind.ROLL_BACK, describe_harm(harmed[0]))
    if worse:
        return Verdict(VerdictKind.ROLL_BACK, f"worse on the primary metric: {describe(primary)}")
    if better:
        if undecided := [check for check in binding if check.standing is Standing.UNDECIDED]:
            names = ", ".join(check.comparison.metric for check in undecided)
            return Verdict(
                VerdictKind.COLLECTING,
                f"better so far: {describe(primary)}; undecided: {names}",
                _most([check.comparison.more_units for check in undecided]),
            )
        return Verdict(VerdictKind.SHIP, describe(primary))
    smallest = experiment.primary.smallest_effect
    if primary.low is not None and primary.high is not None and -smallest < primary.low and primary.high < smallest:
        return Verdict(VerdictKind.NO_DIFFERENCE, f"±{smallest:g} ({describe(primary)})")
    return Verdict(VerdictKind.COLLECTING, more_units=primary.more_units)


def _shown(metric: PrimaryMetric, primary: Comparison) -> tuple[bool, bool]:
    """Return whether the treatment is shown to be better, and whether it is shown to be worse."""
    higher = primary.low is not None and primary.low > 0
    lower = primary.high is not None and primary.high < 0
    return (higher, lower) if metric.better.sign > 0 else (lower, higher)


def _most(numbers: list[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return max(known) if len(known) == len(numbers) else None


def describe(comparison: Comparison) -> str:
    """Return a comparison as `shadow_agreement 0.812 against 0.774, difference 0.038 [0.011, 0.065], 640 units`."""
    return (
        f"{comparison.metric} {_short(comparison.treatment)} against {_short(comparison.control)}, "
        f"difference {_short(comparison.difference)} [{_short(comparison.low)}, {_short(comparison.high)}], "
        f"{comparison.units:,} units"
    )


def describe_harm(check: GuardrailCheck) -> str:
    """Return a harmed guardrail with its margin."""
    guardrail = check.guardrail
    margin = f"{guardrail.margin * 100:g} %" if guardrail.relative else f"{guardrail.margin:g}"
    return f"{guardrail.key} is worse by more than {margin}: {describe(check.comparison)}"


def _short(number: Number) -> str:
    return f"{number:.4g}" if isinstance(number, float) else "?"
