from __future__ import annotations

from itertools import islice, pairwise

import pytest

from tests.wan.targets import client, linked, until
from wan import PROFILES, FaultKind
from wan.link.profiles import UnknownProfile, profile


def test_the_profiles_that_the_commands_name() -> None:
    assert list(PROFILES) == ["fibre", "4g", "satellite", "offline", "train"]
    with pytest.raises(UnknownProfile, match="profile '5g' not found; available profiles: fibre"):
        profile("5g")


def test_a_train_rides_the_same_for_the_same_seed_and_meets_tunnels() -> None:
    train = PROFILES["train"]
    ride = list(islice(train.phases(7), 200))
    assert ride == list(islice(train.phases(7), 200))
    assert ride != list(islice(train.phases(8), 200))
    assert {phase.conditions.latency_ms for phase in ride} == {70, 250, 800}
    stalls = [phase.seconds for phase in ride if phase.stalled]
    assert stalls
    assert max(stalls) <= 2.5
    assert not any(a.stalled and b.stalled for a, b in pairwise(ride))
    assert list(PROFILES["4g"].phases(0)) == []


async def test_a_profile_is_the_whole_state_of_a_link() -> None:
    async with linked() as link, client(link) as c:
        await c.ask(b"x")
        link.profile("offline")
        assert await c.rest() == b""
        assert (link.profile_name, link.state.fault and link.state.fault.kind) == ("offline", FaultKind.CUT)
        link.resume()
        assert (link.profile_name, link.fault) == (None, None)
        link.cut()
        link.profile("satellite")
        assert (link.fault, link.conditions.latency_ms, link.conditions.up_kbit) == (None, 600, 3000)
        link.set(latency="1ms")
        assert (link.profile_name, link.conditions.up_kbit) == (None, 3000)
        with pytest.raises(UnknownProfile):
            link.profile("5g")


async def test_on_a_train_everything_arrives() -> None:
    async with linked() as link, client(link) as c:
        seed = next(s for s in range(1000) if next(PROFILES["train"].phases(s)).stalled)
        link.profile("train", seed=seed)
        assert link.state.stalled, "it begins in a tunnel"
        assert link.faults[FaultKind.STALL] == 1
        assert await c.ask(b"x") == b"x"
        await until(lambda: not link.state.stalled)
        link.profile("fibre")
        assert await c.ask(b"y") == b"y"
