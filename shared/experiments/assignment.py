"""Assignment of units to arms: a pure function of the experiment and the unit, so edge and cloud compute the same.

A unit falls into one of 10,000 buckets: the first 32 bits of SHA-256(salt, unit), modulo 10,000. Each arm has a fixed block of
buckets and owns the first part of it, in proportion to the present step of the ramp. What an arm owns only grows, so a unit that
joins an arm stays in it. The arms' shares have the same ratio at every step; at 100 % every bucket has an owner, so equal arms
may then differ by one bucket.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping

from shared.experiments.definition import Experiment

BUCKETS = 10_000


def bucket_of(salt: str, unit: str) -> int:
    """Return the bucket of a unit, 0 to 9,999. A unit is any text that JSON can carry, lone surrogates included."""
    digest = hashlib.sha256(f"{salt}\0{unit}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") % BUCKETS


def in_layer_range(experiment: Experiment, unit: str) -> bool:
    """Return True if the unit is in the experiment's part of its layer. The layer has a salt of its own."""
    percent = bucket_of(f"layer:{experiment.layer}", unit) * 100 // BUCKETS
    return experiment.layer_range.start <= percent < experiment.layer_range.end


def arm_buckets(experiment: Experiment, percent: int) -> Mapping[str, range]:
    """Return the buckets of each arm at a step of the ramp. They start at the same bucket at every step.

    If 10,000 is no multiple of the number of equal arms, the first arms own one bucket more. They get it at 100 %, so that the
    arms are equal until then.
    """
    owned = {}
    start = 0
    equal, rest = divmod(BUCKETS, len(experiment.arms))
    for place, arm in enumerate(experiment.arms):
        size, more = (equal, int(place < rest)) if arm.weight is None else (BUCKETS * arm.weight // 100, 0)
        owned[arm.name] = range(start, start + size * percent // 100 + (more if percent == 100 else 0))
        start += size + more
    return owned


def arm_at(experiment: Experiment, bucket: int, percent: int) -> str | None:
    """Return the arm that owns a bucket at a step of the ramp, or None if the bucket is outside the experiment."""
    owned = arm_buckets(experiment, percent)
    place = bisect_right([buckets.start for buckets in owned.values()], bucket) - 1
    arm = experiment.arms[place].name
    return arm if bucket in owned[arm] else None


def assign(experiment: Experiment, unit: str) -> str | None:
    """Return the unit's arm, or None if it is outside the experiment or the experiment is not active.

    Eligibility is a property of the request, so the caller checks it: `experiment.eligibility.admits(...)`.
    """
    if not experiment.status.active or not in_layer_range(experiment, unit):
        return None
    return arm_at(experiment, bucket_of(experiment.salt, unit), experiment.percent)
