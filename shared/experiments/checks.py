"""Checks across experiments: what may change while one runs, and which ones may run together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from shared.errors import InvalidRequest
from shared.experiments.definition import Experiment, Status

CHANGEABLE = frozenset(
    {"description", "ramp", "step_units", "step_s", "on_no_difference", "muted_signals", "status", "percent", "winner"}
)
"""Fields that may change once an experiment has started. The others decide who is in which arm, or what was to be shown."""
CHANGEABLE_AFTER_END = frozenset({"description"})
"""Fields that may change once an experiment is shipped or rolled back."""

TRANSITIONS = {
    Status.DRAFT: {Status.DRAFT, Status.RUNNING},
    Status.RUNNING: {Status.RUNNING, Status.PAUSED, Status.SHIPPED, Status.ROLLED_BACK},
    Status.PAUSED: {Status.PAUSED, Status.RUNNING, Status.SHIPPED, Status.ROLLED_BACK},
    Status.SHIPPED: {Status.SHIPPED},
    Status.ROLLED_BACK: {Status.ROLLED_BACK},
}


def check_change(before: Experiment, after: Experiment) -> None:
    """Raise InvalidRequest if an experiment must not change in this way."""
    if after.status not in TRANSITIONS[before.status]:
        possible = ", ".join(sorted(TRANSITIONS[before.status]))
        raise InvalidRequest(
            f"experiment {before.name!r} is {before.status} and cannot become {after.status}; possible: {possible}",
            param="status",
        )
    if before.name != after.name:
        raise InvalidRequest(f"the name {before.name!r} cannot change to {after.name!r}", param="name")
    if before.status is Status.DRAFT:
        return
    changeable = CHANGEABLE if before.status.active else CHANGEABLE_AFTER_END
    for field in Experiment.model_fields:
        if field not in changeable and getattr(before, field) != getattr(after, field):
            raise InvalidRequest(
                f"experiment {before.name!r} is {before.status}: {field} cannot change; start a new experiment",
                param=field,
            )
    if after.percent < before.percent:
        raise InvalidRequest(
            f"experiment {before.name!r}: percent is {before.percent} and can only grow, so that no unit changes its arm; "
            f"got {after.percent}. Pause it or roll it back instead",
            param="percent",
        )


def check_together(experiments: Sequence[Experiment]) -> None:
    """Raise InvalidRequest if two active experiments have one name or can meet where they must not."""
    active = [experiment for experiment in experiments if experiment.status.active]
    for one, other in combinations(active, 2):
        if one.name == other.name:
            raise InvalidRequest(f"two active experiments are called {one.name!r}", param="name")
        if one.layer == other.layer:
            _check_layer(one, other)
        else:
            _check_changes(one, other)


def _check_layer(one: Experiment, other: Experiment) -> None:
    both = f"experiments {one.name!r} and {other.name!r} are in layer {one.layer!r}"
    if one.unit != other.unit:
        raise InvalidRequest(f"{both} and assign different units, {one.unit} and {other.unit}", param="unit")
    if one.layer_range.overlaps(other.layer_range):
        ranges = " and ".join(f"{part.layer_range.start} to {part.layer_range.end}" for part in (one, other))
        raise InvalidRequest(
            f"{both} and would meet on one unit: their ranges {ranges} overlap; use ranges apart, such as 0 to 50 and 50 to 100",
            param="layer_range",
        )


def _check_changes(one: Experiment, other: Experiment) -> None:
    """Compare experiments of different layers, which can meet on a unit: they must not set the same thing."""
    if not one.eligibility.overlaps(other.eligibility):
        return
    changed = [{field for arm in experiment.arms for field in arm.changes} for experiment in (one, other)]
    if common := sorted(changed[0] & changed[1]):
        raise InvalidRequest(
            f"experiments {one.name!r} and {other.name!r} of different layers can meet and both set {common[0]}; "
            "put them into one layer",
            param="layer",
        )
