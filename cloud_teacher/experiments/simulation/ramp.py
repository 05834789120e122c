"""A simulated ramp from 1 to 100 %: how many units change their arm."""

from __future__ import annotations

import numpy as np

from shared.experiments.assignment import BUCKETS, arm_buckets, bucket_of, in_layer_range
from shared.experiments.definition import Arm, Experiment, LayerRange, Status, Unit
from shared.experiments.metrics import Direction, MetricKind, PrimaryMetric

OUTSIDE = -1


def count_arm_changes(units: int) -> int:
    """Count the units that leave an arm or change it while the ramp rises by one percent at a time."""
    experiment = Experiment(
        name="ramp",
        salt="simulated-ramp",
        unit=Unit.USER,
        layer_range=LayerRange(start=10, end=90),
        arms=(Arm(name="control"), Arm(name="short", policy="short@1"), Arm(name="long", policy="long@1")),
        control="control",
        primary=PrimaryMetric(
            name="shadow_agreement", kind=MetricKind.MEAN, better=Direction.HIGHER, smallest_effect=0.02
        ),
        ramp=tuple(range(1, 101)),
        status=Status.RUNNING,
        percent=1,
    )
    names = [f"unit-{number}" for number in range(units)]
    buckets = np.array([bucket_of(experiment.salt, name) for name in names if in_layer_range(experiment, name)])
    before = np.full(len(buckets), OUTSIDE)
    changed = np.zeros(len(buckets), np.bool_)
    for percent in experiment.ramp:
        owners = np.full(BUCKETS, OUTSIDE)
        for arm, owned in enumerate(arm_buckets(experiment, percent).values()):
            owners[owned.start : owned.stop] = arm
        now = owners[buckets]
        changed |= (before != OUTSIDE) & (now != before)
        before = now
    return int(changed.sum())
