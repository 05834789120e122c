"""Assignment: the same everywhere, in the intended shares, and no unit ever changes its arm while the ramp rises."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.experiments.assignment import BUCKETS, arm_at, arm_buckets, assign, bucket_of
from shared.experiments.definition import Experiment
from tests.shared.experiments.fixtures import FIELDS, experiment, running

EVERY_STEP = list(range(1, 101))


def arms(*weights: int | None) -> list[dict[str, Any]]:
    return [
        {"name": f"arm-{number}", "policy": f"p@{number + 1}", "weight": weight}
        for number, weight in enumerate(weights)
    ]


def many(*weights: int | None, **changes: Any) -> Experiment:
    return running(arms=arms(*weights), control="arm-0", ramp=EVERY_STEP, **changes)


def test_buckets_are_the_first_32_bits_of_sha256() -> None:
    # printf 'b7Qx2kLm\0anna' | sha256sum, and so on: other implementations must find the same.
    assert [bucket_of("b7Qx2kLm", unit) for unit in ("anna", "bert", "")] == [3268, 1718, 5471]


def test_a_unit_may_be_any_text_that_json_can_carry() -> None:
    # printf 'b7Qx2kLm\0\355\240\200' | sha256sum
    assert bucket_of("b7Qx2kLm", json.loads(r'"\ud800"')) == 5827
    assert assign(running(), "\ud800") == "short"


def test_100000_units_never_change_their_arm_from_1_to_100_percent() -> None:
    ramp = many(None, None, None)
    buckets = [bucket_of(ramp.salt, f"unit-{number}") for number in range(100_000)]
    seen = Counter(buckets)
    joined: dict[int, str] = {}
    changes = 0
    for percent in EVERY_STEP:
        owned = arm_buckets(ramp, percent)
        for name, part in owned.items():
            for bucket in part:
                changes += seen[bucket] * (joined.setdefault(bucket, name) != name)
        inside = sum(len(part) for part in owned.values())
        assert inside == len(joined), "what an arm owned it still owns"
    assert changes == 0
    assert len(joined) == BUCKETS


@pytest.mark.parametrize("count", range(2, 11))
def test_equal_arms_share_all_buckets_and_none_leaves_its_arm(count: int) -> None:
    ramp = many(*[None] * count)
    joined: dict[int, str] = {}
    for percent in EVERY_STEP:
        owned = {bucket: name for name, part in arm_buckets(ramp, percent).items() for bucket in part}
        assert joined.items() <= owned.items()
        joined = owned
    assert len(joined) == BUCKETS
    assert [arm_at(ramp, bucket, 100) for bucket in range(BUCKETS)] == [joined[bucket] for bucket in range(BUCKETS)]


def test_the_first_of_equal_arms_own_the_rest() -> None:
    sizes = {count: [len(part) for part in arm_buckets(many(*[None] * count), 100).values()] for count in (2, 3, 7)}
    assert sizes == {2: [5000] * 2, 3: [3334, 3333, 3333], 7: [1429] * 4 + [1428] * 3}


WEIGHTS = st.integers(1, 98).flatmap(lambda first: st.tuples(st.just(first), st.integers(1, 99 - first)))


@settings(max_examples=50)
@given(WEIGHTS, st.integers(0, BUCKETS - 1), st.lists(st.integers(1, 100), min_size=2, max_size=2).map(sorted))
def test_an_arm_that_a_bucket_joins_keeps_it(weights: tuple[int, int], bucket: int, steps: list[int]) -> None:
    ramp = many(*weights, 100 - sum(weights))
    before, after = (arm_at(ramp, bucket, step) for step in steps)
    assert before in {None, after}


@pytest.mark.parametrize("weights", [(None, None), (None, None, None), (90, 10), (34, 33, 33)])
def test_shares_have_the_same_ratio_at_every_step(weights: tuple[int | None, ...]) -> None:
    ramp = many(*weights)
    for percent in EVERY_STEP:
        sizes = [len(part) for part in arm_buckets(ramp, percent).values()]
        if weights[0] is None:
            assert max(sizes) - min(sizes) <= (percent == 100 and BUCKETS % len(weights) > 0)
        else:
            assert sizes == [weight * percent for weight in weights if weight]


def test_units_are_shared_as_intended_and_others_stay_outside() -> None:
    counts = Counter(assign(running(percent=50), f"unit-{number}") for number in range(20_000))
    assert counts[None] == pytest.approx(10_000, abs=300)
    assert counts["now"] == pytest.approx(5_000, abs=250)
    assert counts["short"] == pytest.approx(5_000, abs=250)


def test_every_bucket_has_the_owner_that_the_ranges_say() -> None:
    ramp = many(50, 30, 20)
    for percent in (1, 33, 100):
        owners = {bucket: name for name, part in arm_buckets(ramp, percent).items() for bucket in part}
        assert all(arm_at(ramp, bucket, percent) == owners.get(bucket) for bucket in range(BUCKETS))


def test_only_active_experiments_assign() -> None:
    units = [f"unit-{number}" for number in range(50)]
    assigned = [assign(running(), unit) for unit in units]
    assert set(assigned) == {"now", "short"}
    assert [assign(running(status="paused"), unit) for unit in units] == assigned
    assert {assign(experiment(), unit) for unit in units} == {None}
    assert {assign(running(status="rolled_back"), unit) for unit in units} == {None}


def test_experiments_of_one_layer_never_meet_and_those_of_two_layers_meet_independently() -> None:
    units = [f"unit-{number}" for number in range(4_000)]
    first = running(layer_range={"start": 0, "end": 50})
    second = running(name="second", salt="another-salt", layer_range={"start": 50, "end": 100})
    apart = running(name="apart", salt="third-salt", layer="templates")
    meet = Counter((assign(first, unit), assign(second, unit)) for unit in units)
    assert all((one is None) != (other is None) for one, other in meet)
    crossed = Counter((assign(first, unit), assign(apart, unit)) for unit in units if assign(first, unit))
    assert all(count == pytest.approx(500, abs=100) for count in crossed.values())
    assert len(crossed) == 4


def test_another_salt_makes_another_assignment() -> None:
    units = [f"unit-{number}" for number in range(1_000)]
    same = sum(assign(running(), unit) == assign(running(salt="another-salt"), unit) for unit in units)
    assert same == pytest.approx(500, abs=80)
    assert FIELDS["salt"] != "another-salt"
