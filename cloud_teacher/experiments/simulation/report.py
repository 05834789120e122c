"""All simulations, one after the other, and their figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cloud_teacher.experiments.simulation.ramp import count_arm_changes
from cloud_teacher.experiments.simulation.runs import Power, false_positive_rate, power, ratio_false_alarm_rate
from cloud_teacher.experiments.simulation.workloads import WORKLOADS

EFFECTS = (0.0, 1.0, 2.0, 4.0)
"""Effects of the power curve, as multiples of the smallest effect. They raise the metric, so they are harm if lower is better."""
RAMP_UNITS = 100_000
RATIOS = ((1, 1), (34, 33, 33), (90, 10))
POWER_RUNS = 300


@dataclass(frozen=True)
class SimulationReport:
    false_positives: dict[str, float]
    """Share of A/A experiments that ever show a difference, by kind of metric."""
    false_alarms: dict[str, float]
    """Share of experiments that ever raise the sample-ratio alarm, by intended ratio."""
    arm_changes: int
    curve: tuple[Power, ...]

    def figures(self) -> dict[str, float]:
        """Return the figures by their JSON names: the worst of each kind, then all."""
        return {
            "aa_false_positive": max(self.false_positives.values()),
            "srm_false_alarm": max(self.false_alarms.values()),
            "arm_changes": self.arm_changes,
            **{f"aa_false_positive_{name}": rate for name, rate in self.false_positives.items()},
            **{f"srm_false_alarm_{ratio}": rate for ratio, rate in self.false_alarms.items()},
        }


def simulate(*, runs: int, outcomes: int, seed: int, progress: Callable[[str], None]) -> SimulationReport:
    """Run all simulations; `progress` is called with a line for each. Experiments of the power curve last twice as long."""
    false_positives = {}
    for workload in WORKLOADS:
        progress(f"A/A experiments: {workload.name}")
        false_positives[workload.name] = false_positive_rate(workload, runs=runs, outcomes=outcomes, seed=seed)
    false_alarms = {}
    for ratio in RATIOS:
        name = "_".join(map(str, ratio))
        progress(f"sample ratio {name}")
        false_alarms[name] = ratio_false_alarm_rate(ratio, runs=runs, outcomes=outcomes, seed=seed)
    progress("ramp from 1 to 100 %")
    changes = count_arm_changes(RAMP_UNITS)
    curve = []
    for workload in WORKLOADS:
        progress(f"power: {workload.name}")
        for multiple in EFFECTS:
            effect = multiple * workload.metric.smallest_effect
            few = min(runs, POWER_RUNS)
            curve.append(power(workload, effect, runs=few, outcomes=2 * outcomes, seed=seed))
    return SimulationReport(false_positives, false_alarms, changes, tuple(curve))
