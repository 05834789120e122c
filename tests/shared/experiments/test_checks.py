"""Changes that a running experiment accepts, and experiments that may run together."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import InvalidRequest
from shared.experiments.checks import check_change, check_together
from tests.shared.experiments.fixtures import FIELDS, experiment, running


@pytest.mark.parametrize(
    "changes",
    [
        {"percent": 10},
        {"status": "paused"},
        {"status": "shipped", "winner": "short"},
        {"step_s": 60.0},
        {"description": "x"},
        {"muted_signals": ["feedback"]},
        {"status": "paused", "muted_signals": ["feedback"]},
    ],
)
def test_a_running_experiment_may_change_this(changes: dict[str, Any]) -> None:
    check_change(running(percent=5), running(**{"percent": 5} | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"percent": 1}, "percent is 5 and can only grow, so that no unit changes its arm; got 1"),
        ({"salt": "another-salt"}, "is running: salt cannot change; start a new experiment"),
        ({"arms": [*FIELDS["arms"], {"name": "third", "policy": "c@1"}]}, "is running: arms cannot change"),
        ({"layer_range": {"start": 0, "end": 50}}, "is running: layer_range cannot change"),
        ({"tuning_units": 500}, "is running: tuning_units cannot change"),
        ({"guardrails": []}, "is running: guardrails cannot change"),
        ({"name": "other"}, "the name 'shorter-maths' cannot change to 'other'"),
    ],
)
def test_a_running_experiment_may_not_change_this(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_change(running(percent=5), running(**{"percent": 5} | changes))
    assert complaint in caught.value.message


def test_a_draft_may_change_and_start() -> None:
    check_change(experiment(), experiment(salt="another-salt"))
    check_change(experiment(), running(percent=1))


def test_the_end_of_an_experiment_is_final() -> None:
    with pytest.raises(InvalidRequest, match="is rolled_back and cannot become running; possible: rolled_back"):
        check_change(running(status="rolled_back"), running())
    with pytest.raises(InvalidRequest, match="is draft and cannot become paused; possible: draft, running"):
        check_change(experiment(), running(status="paused"))


def test_a_rollout_that_a_signal_paused_goes_on_once_the_signal_is_muted() -> None:
    check_change(running(status="paused", percent=5), running(percent=5, muted_signals=["feedback"]))


ENDED = pytest.mark.parametrize("end", [{"status": "shipped", "winner": "short"}, {"status": "rolled_back"}])


@ENDED
@pytest.mark.parametrize(
    "changes",
    [
        {"percent": 100},
        {"ramp": [5, 50]},
        {"step_units": 7},
        {"step_s": 60.0},
        {"on_no_difference": "ship"},
        {"muted_signals": ["feedback"]},
        {"salt": "another-salt"},
    ],
)
def test_an_experiment_that_has_ended_may_not_change(end: dict[str, Any], changes: dict[str, Any]) -> None:
    (field,) = changes
    with pytest.raises(InvalidRequest, match=f"is {end['status']}: {field} cannot change") as caught:
        check_change(running(**{"percent": 5} | end), running(**{"percent": 5} | end | changes))
    assert caught.value.param == field


def test_a_shipped_experiment_keeps_its_winner() -> None:
    with pytest.raises(InvalidRequest, match="is shipped: winner cannot change"):
        check_change(running(status="shipped", winner="short"), running(status="shipped", winner="now"))


@ENDED
def test_the_description_may_change_after_the_end(end: dict[str, Any]) -> None:
    check_change(running(**end), running(description="what was learnt", **end))


def other(**changes: Any) -> dict[str, Any]:
    return {"name": "other", "salt": "another-salt"} | changes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "shorter-maths"}, "two active experiments are called 'shorter-maths'"),
        ({}, "would meet on one unit: their ranges 0 to 100 and 0 to 100 overlap"),
        ({"unit": "edge"}, "are in layer 'default' and assign different units, user and edge"),
        ({"layer": "templates"}, "of different layers can meet and both set policy"),
    ],
)
def test_experiments_that_must_not_meet(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_together([running(), running(**other(**changes))])
    assert complaint in caught.value.message


def test_experiments_that_may_run_together() -> None:
    halves = [running(layer_range={"start": 0, "end": 50}), running(**other(layer_range={"start": 50, "end": 100}))]
    teachers = running(
        **other(name="teachers", layer="teachers", arms=[{"name": "now"}, {"name": "large", "teacher": "large"}])
    )
    code = running(**other(name="code", layer="code", eligibility={"tasks": ["code"]}))
    maths = running(eligibility={"tasks": ["maths"]})
    check_together([*halves, teachers, experiment(), running(status="rolled_back")])
    check_together([maths, code])
