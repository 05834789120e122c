"""Health of an experiment's data. Verdicts are given on healthy data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cloud_teacher.experiments.comparison import ArmData
from cloud_teacher.experiments.statistics import sample_ratio
from shared.experiments.definition import Experiment

MAX_MIXED_SHARE = 0.001
"""Share of units seen in more than one arm up to which the data counts as healthy."""


@dataclass(frozen=True, slots=True)
class ExperimentData:
    """Sums of an experiment's outcomes."""

    arms: Mapping[str, ArmData]
    """By name; an arm without units may be missing."""
    mixed_units: int = 0
    """Units that were seen in more than one arm. They belong to no arm's sums."""

    def arm(self, name: str) -> ArmData:
        return self.arms.get(name, ArmData(0))

    @property
    def units(self) -> int:
        return sum(arm.units for arm in self.arms.values())


@dataclass(frozen=True, slots=True)
class Health:
    sample_ratio_p: float
    problems: tuple[str, ...]


def check_health(experiment: Experiment, data: ExperimentData) -> Health:
    """Check the arms' shares of the units, and that each unit was seen in one arm."""
    problems = []
    counts = [data.arm(name).units for name in experiment.arm_names]
    p = float(sample_ratio.p_value(counts, experiment.weights))
    if p < sample_ratio.ALARM:
        seen = ", ".join(f"{name} {count}" for name, count in zip(experiment.arm_names, counts, strict=True))
        intended = " : ".join(map(str, experiment.weights))
        problems.append(f"sample ratio: {seen}; intended {intended} (p = {p:.2g})")
    everything = data.units + data.mixed_units
    if data.mixed_units > MAX_MIXED_SHARE * everything:
        problems.append(f"{data.mixed_units} of {everything} units were seen in more than one arm")
    return Health(p, tuple(problems))
