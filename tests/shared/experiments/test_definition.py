"""Definitions: a valid one survives JSON, and each mistake has an error that names it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from shared.experiments.definition import Eligibility, Experiment, Status
from shared.validation import describe
from tests.shared.experiments.fixtures import FIELDS, experiment, running

PRIMARY, ARMS = FIELDS["primary"], FIELDS["arms"]


def test_an_experiment_is_the_same_after_json_as_text_and_as_parsed_objects() -> None:
    before = running(percent=5, layer_range={"start": 20, "end": 80}, eligibility={"tasks": ["maths"]})
    assert Experiment.model_validate_json(before.model_dump_json()) == before
    assert Experiment.model_validate(json.loads(before.model_dump_json())) == before
    assert before.treatments == ("short",)
    assert before.next_step() == 10
    assert before.model_copy(update={"percent": 100}).next_step() is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"salt": "short"}, "salt: String should match"),
        ({"unit": "household"}, "unit: Input should be 'request', 'user' or 'edge'"),
        ({"owner": "me"}, "owner: Extra inputs are not permitted"),
        ({"alpha": "0.05"}, "alpha: Input should be a valid number"),
        ({"control": "new"}, "control: unknown arm 'new'; arms: now, short"),
        ({"arms": ARMS[:1]}, "arms: Tuple should have at least 2 items"),
        ({"arms": [ARMS[0], ARMS[1] | {"name": "now"}]}, "arms: two arms are called 'now'"),
        (
            {"arms": [ARMS[0] | {"weight": 50}, ARMS[1] | {"weight": 40}]},
            "arms: the weights 50 + 40 sum to 90; expected 100",
        ),
        ({"arms": [ARMS[0] | {"weight": 50}, ARMS[1]]}, "either all arms have a weight or none; missing: short"),
        ({"arms": [ARMS[0], {"name": "same"}]}, "arms 'now' and 'same' are equal; set `aa` for an A/A test"),
        ({"aa": True}, "arms 'now' and 'short' differ; an A/A test needs equal arms"),
        ({"arms": [ARMS[0], {"name": "b", "policy": "Maths"}]}, "arms.1.policy: String should match"),
        ({"arms": [ARMS[0], {"name": "b", "policy": "maths@0"}]}, "arms.1.policy: 'maths@0' has no version 0"),
        ({"arms": [ARMS[0], {"name": "b", "policy": "maths@007"}]}, "a version is 1 to 999999999"),
        ({"arms": [ARMS[0], {"name": "b", "template": "answer@1234567890"}]}, "has no version 1234567890"),
        ({"arms": [ARMS[0], {"name": "b", "template": "answer@0#1f2e3d4c"}]}, "arms.1.template: String should match"),
        (
            {"arms": [{"name": "now", "template": "answer@2"}, {"name": "b", "template": "answer@2#1f2e3d4c"}]},
            "arms 'now' and 'b' are equal; set `aa` for an A/A test",
        ),
        ({"layer_range": {"start": 50, "end": 50}}, "layer_range: the range 50 to 50 is empty"),
        ({"ramp": [1, 5, 5]}, "ramp: the steps must rise, as in 1, 5, 25, 100; got 1, 5, 5"),
        ({"ramp": [0, 50]}, "ramp.0: Input should be greater than or equal to 1"),
        ({"percent": 5}, "percent: is 5 in a draft; expected 0"),
        ({"status": "running", "percent": 7}, "percent: 7 is no step of the ramp 1, 5, 10, 25, 50, 100"),
        ({"status": "shipped", "percent": 100}, "winner: is None, status shipped"),
        ({"status": "shipped", "percent": 100, "winner": "none"}, "winner: unknown arm 'none'"),
        (
            {"status": "running", "percent": 1, "arms": [ARMS[0], {"name": "b", "policy": "maths@candidate"}]},
            "arm 'b': policy: 'maths@candidate' can move; a running experiment needs a version, such as 'maths@3'",
        ),
        ({"primary": PRIMARY | {"smallest_effect": 0}}, "primary.smallest_effect: Input should be greater than 0"),
        ({"primary": PRIMARY | {"kind": "ratio"}}, "metric 'shadow_agreement': a ratio needs `per`"),
        ({"primary": PRIMARY | {"above": 3}}, "metric 'shadow_agreement': only a rate has `above`; kind is mean"),
        (
            {"guardrails": [PRIMARY | {"margin": 0.1}]},
            "guardrails.0.smallest_effect: Extra inputs are not permitted",
        ),
        (
            {"guardrails": [{"name": "shadow_agreement", "kind": "mean", "better": "higher", "margin": 0.1}]},
            "metric 'shadow_agreement' is used twice",
        ),
        (
            {"guardrails": [{"name": "fallback", "kind": "rate", "better": "lower", "margin": 0.1, "relative": True}]},
            "guardrail 'fallback': a rate needs an absolute margin",
        ),
        ({"muted_signals": ["fallback"]}, "muted_signals: 'fallback' is no signal; signals: feedback"),
    ],
)
def test_a_mistake_is_named(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError) as caught:
        experiment(**changes)
    assert complaint in describe(caught.value)


def test_arms_of_an_aa_test_are_equal() -> None:
    arms = [{"name": "a", "policy": "maths@4"}, {"name": "b", "policy": "maths@4"}]
    assert experiment(arms=arms, control="a", aa=True).aa
    arms[1]["policy"] = "maths@4#1f2e3d4c"
    assert experiment(arms=arms, control="a", aa=True).aa


@pytest.mark.parametrize("policy", ["maths@1", "maths@10", "maths@999999999", "maths@3#1f2e3d4c"])
def test_a_running_experiment_may_use_any_version(policy: str) -> None:
    assert running(arms=[ARMS[0], {"name": "b", "policy": policy}]).arms[1].policy == policy


@pytest.mark.parametrize("policy", ["maths", "maths@candidate", "maths@3.1", "maths@0x", "maths@2026-11"])
def test_a_label_is_not_digits_alone_and_can_move(policy: str) -> None:
    arms = [ARMS[0], {"name": "b", "policy": policy}]
    assert experiment(arms=arms).arms[1].policy == policy
    with pytest.raises(ValidationError, match="can move; a running experiment needs a version"):
        running(arms=arms)


def test_a_paused_experiment_is_active_and_a_shipped_one_is_not() -> None:
    assert Status.PAUSED.active
    assert not Status.SHIPPED.active


def test_the_same_number_can_be_watched_in_several_ways() -> None:
    slow = {"name": "total_ms", "kind": "rate", "better": "lower", "margin": 0.05}
    watched = experiment(guardrails=[slow | {"above": 4000}, slow | {"above": 8000}])
    assert [guardrail.key for guardrail in watched.guardrails] == ["total_ms>4000", "total_ms>8000"]


def test_eligibility() -> None:
    canaries = Eligibility(models=("gkt",), edge_labels=("canary",), tasks=("maths", "code"))
    assert canaries.admits(model="gkt", edge_labels=["canary", "lab"], task="code")
    assert not canaries.admits(model="gkt-teacher", edge_labels=["canary"], task="code")
    assert not canaries.admits(model="gkt", edge_labels=[], task="code")
    assert not canaries.admits(model="gkt", edge_labels=["canary"], task=None)
    assert Eligibility().admits(model="any", edge_labels=[], task=None)
    assert canaries.overlaps(Eligibility())
    assert not canaries.overlaps(Eligibility(tasks=("chat",)))
