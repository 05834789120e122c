from __future__ import annotations

from edge_student.cloud.circuit_breaker import BreakerState, CircuitBreaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_opens_after_failures_in_a_row_only() -> None:
    breaker = CircuitBreaker(failures=2, open_s=10, clock=Clock())
    for verdict in (breaker.failed, breaker.succeeded, breaker.failed):
        assert breaker.allow()
        verdict()
    assert breaker.state is BreakerState.CLOSED
    breaker.failed()
    assert not breaker.allow()


def test_one_failure_that_leaves_no_doubt_is_enough() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=3, open_s=10, clock=clock)
    breaker.failed(at_once=True)
    assert not breaker.allow()
    clock.now += 10
    assert breaker.allow()
    breaker.succeeded()
    breaker.failed()
    assert breaker.allow()


def test_half_open_lets_one_through_and_its_success_closes() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=1, open_s=10, clock=clock)
    breaker.failed()
    clock.now += 10
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.allow()
    assert not breaker.allow()
    breaker.succeeded()
    assert breaker.allow()
    assert breaker.allow()


def test_a_failed_trial_opens_again_and_an_abandoned_one_lets_the_next_try() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=1, open_s=10, clock=clock)
    breaker.failed()
    clock.now += 10
    assert breaker.allow()
    breaker.abandoned()
    assert breaker.allow()
    breaker.failed()
    assert not breaker.allow()
    clock.now += 9.9
    assert not breaker.allow()


def test_holds_for_as_long_as_the_cloud_asks() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=5, open_s=10, clock=clock)
    breaker.hold(30)
    clock.now += 29
    assert not breaker.allow()
    clock.now += 1
    assert breaker.allow()


def test_what_ends_well_meanwhile_does_not_take_back_what_the_cloud_asked_for() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=1, open_s=100, clock=clock)
    assert breaker.allow()
    assert breaker.allow()
    breaker.hold(30)
    breaker.succeeded()
    clock.now += 29
    assert not breaker.allow()
    clock.now += 1
    assert breaker.allow()
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_a_failure_meanwhile_does_not_shorten_it() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=1, open_s=10, clock=clock)
    breaker.hold(30)
    breaker.failed()
    clock.now += 29
    assert not breaker.allow()
