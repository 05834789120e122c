"""Which policy a request gets, from its own fields, the edge's settings and a policy file."""

from __future__ import annotations

from typing import Any

import pytest

from edge_student.answering.strategies.verification import Thresholds
from edge_student.policy import PolicyResolver, rollout_bucket
from edge_student.settings import EdgeSettings
from shared.policy_file import PolicyFile
from shared.protocol.gkt import GktOptions, Mode
from tests.edge_student.scripted_edge import edge


@pytest.mark.parametrize(
    ("wishes", "settings", "thresholds"),
    [
        (
            {"mode": "review"},
            {},
            {"acceptance": 0.5, "max_correction_tokens": 1, "confidence": 0.1, "handback_after": 0, "draft_lines": 1},
        ),
        ({"mode": "review", "max_correction_tokens": 4}, {}, {"max_correction_tokens": 4, "handback_after": 3}),
        ({"mode": "review", "max_correction_tokens": 0}, {}, {"max_correction_tokens": 0, "handback_after": 3}),
        ({"mode": "review", "draft_lines": 3}, {}, {"confidence": 0.0, "draft_lines": 3}),
        ({"mode": "review", "draft_lines": 3, "confidence_threshold": 0.2}, {}, {"confidence": 0.2}),
        ({"mode": "review"}, {"draft_lines": 2}, {"confidence": 0.0, "draft_lines": 2}),
        (
            {"mode": "review"},
            {"max_correction_tokens": 2, "handback_after": 1},
            {"max_correction_tokens": 2, "handback_after": 1},
        ),
        (
            {"mode": "on_demand"},
            {},
            {"max_correction_tokens": 0, "confidence": 0.5, "handback_after": 3, "draft_lines": 1},
        ),
        ({"mode": "on_demand"}, {"draft_lines": 2}, {"confidence": 0.5, "draft_lines": 1}),
    ],
)
def test_thresholds_come_from_the_request_then_the_settings_then_the_mode(
    wishes: dict[str, Any], settings: dict[str, Any], thresholds: dict[str, Any]
) -> None:
    policy = PolicyResolver(EdgeSettings(**settings)).resolve("gkt", GktOptions(**wishes))
    assert policy.mode == Mode(wishes["mode"])
    resolved = Thresholds.from_policy(policy)
    assert {name: getattr(resolved, name) for name in thresholds} == thresholds


def test_without_any_settings_the_defaults_apply() -> None:
    policy = PolicyResolver(EdgeSettings()).resolve("gkt")
    assert (policy.mode, policy.max_guidance_tokens, policy.handback_after) == (Mode.FIXED, 40, 3)
    assert (policy.template, policy.teacher, policy.scores, policy.file) == (None, None, False, None)


@pytest.mark.parametrize(
    ("model", "wishes", "max_tokens", "budget"),
    [
        ("gkt", {}, None, 40),
        ("gkt", {}, 7, 7),
        ("gkt", {"max_guidance_tokens": 0}, None, 0),
        ("gkt", {"mode": "off", "max_guidance_tokens": 9}, None, 0),
        ("gkt-student", {}, None, 0),
        ("gkt-teacher", {}, None, 1024),
        ("gkt-teacher", {}, 300, 300),
        ("gkt-teacher", {"max_guidance_tokens": 9}, 300, 9),
        ("gkt-teacher", {"max_guidance_tokens": 0}, None, 0),
        ("gkt-teacher", {"max_guidance_tokens": 0}, 300, 0),
        ("gkt", {"mode": "teacher", "max_guidance_tokens": 0}, 300, 0),
        ("gkt-teacher", {}, 0, 0),
    ],
)
def test_the_budget_is_within_the_limit_of_the_answer(
    model: str, wishes: dict[str, Any], max_tokens: int | None, budget: int
) -> None:
    policy = PolicyResolver(EdgeSettings()).resolve(model, GktOptions(**wishes), max_tokens=max_tokens)
    assert policy.max_guidance_tokens == budget


async def test_without_a_budget_the_student_answers_alone_in_mode_teacher() -> None:
    async with edge() as running:
        answer = (await running.chat(model="gkt-teacher", gkt={"max_guidance_tokens": 0})).json()
        assert running.cloud.requests == []
    report = answer["gkt"]
    assert answer["choices"][0]["message"]["content"] == " are 18."
    assert (report["mode"], report["fallback"]) == ("teacher", None)
    assert [[segment["source"] for segment in choice] for choice in report["segments"]] == [["student"]]
    assert report["teacher"] is None


@pytest.mark.parametrize(
    ("model", "wishes", "rollout_fraction", "bucket", "mode", "file"),
    [
        ("gkt", {}, 1.0, 0.999, "review", "maths"),
        ("gkt", {}, 0.3, 0.299, "review", "maths"),
        ("gkt", {}, 0.3, 0.3, "off", "maths"),
        ("gkt", {}, 0.0, 0.0, "off", "maths"),
        ("gkt", {"rollout_fraction": 1}, 0.3, 0.5, "review", "maths"),
        ("gkt", {"rollout_fraction": 0.2}, 1.0, 0.2, "off", "maths"),
        ("gkt", {"mode": "fixed"}, 0.0, 0.9, "fixed", None),
        ("gkt", {"mode": "fixed", "rollout_fraction": 0.5}, 1.0, 0.9, "off", None),
        ("gkt-teacher", {}, 0.0, 0.9, "teacher", None),
        ("gkt-teacher", {"rollout_fraction": 0.5}, 1.0, 0.9, "off", None),
    ],
)
def test_a_mode_applies_to_its_fraction_of_the_requests_that_do_not_name_it(
    model: str, wishes: dict[str, Any], rollout_fraction: float, bucket: float, mode: str, file: str | None
) -> None:
    settings = EdgeSettings(rollout_fraction=rollout_fraction)
    resolver = PolicyResolver(settings, PolicyFile(name="maths", mode=Mode.REVIEW))
    policy = resolver.resolve(model, GktOptions(**wishes), bucket=lambda: bucket)
    assert (policy.mode, policy.file, policy.max_guidance_tokens > 0) == (Mode(mode), file, mode != "off")


def test_a_structured_answer_is_rolled_out_too() -> None:
    resolver = PolicyResolver(EdgeSettings(mode=Mode.REVIEW, rollout_fraction=0.5))
    buckets = (lambda: 0.4, lambda: 0.6)
    modes = [resolver.resolve("gkt", structured=True, bucket=bucket).mode for bucket in buckets]
    assert modes == ["fixed", "off"]


def test_buckets_are_even_and_the_same_for_the_same_prompt_and_seed() -> None:
    buckets = [rollout_bucket([1, 2, last], 0) for last in range(1000)]
    assert buckets == [rollout_bucket([1, 2, last], 0) for last in range(1000)]
    assert all(0 <= one < 1 for one in buckets)
    tenths = [sum(int(one * 10) == tenth for one in buckets) for tenth in range(10)]
    assert min(tenths) > 60, "a hundred each; four standard deviations are 38"
    other = [rollout_bucket([1, 2, last], 1) for last in range(1000)]
    assert sum((one < 0.5) == (two < 0.5) for one, two in zip(buckets, other, strict=True)) in range(400, 600)
    assert rollout_bucket([7], None) == rollout_bucket([7], None) != rollout_bucket([7], 0)
