"""The policy chooses a request's mode and limits from its options and the edge's settings."""

from __future__ import annotations

from typing import Any

import pytest

from edge_student.policy import lot, plan
from edge_student.settings import EdgeSettings
from shared.protocol.gkt import GktOptions, Mode


@pytest.mark.parametrize(
    ("wishes", "settings", "taking_turns"),
    [
        (
            {"mode": "review"},
            {},
            {
                "acceptance_threshold": 0.5,
                "max_correction_tokens": 1,
                "confidence_threshold": 0.1,
                "handback_after": 0,
                "draft_lines": 1,
            },
        ),
        ({"mode": "review", "max_correction_tokens": 4}, {}, {"max_correction_tokens": 4, "handback_after": 3}),
        ({"mode": "review", "max_correction_tokens": 0}, {}, {"max_correction_tokens": 0, "handback_after": 3}),
        ({"mode": "review", "draft_lines": 3}, {}, {"confidence_threshold": 0.0, "draft_lines": 3}),
        ({"mode": "review", "draft_lines": 3, "confidence_threshold": 0.2}, {}, {"confidence_threshold": 0.2}),
        ({"mode": "review"}, {"draft_lines": 2}, {"confidence_threshold": 0.0, "draft_lines": 2}),
        (
            {"mode": "review"},
            {"max_correction_tokens": 2, "handback_after": 1},
            {"max_correction_tokens": 2, "handback_after": 1},
        ),
        (
            {"mode": "on_demand"},
            {},
            {"max_correction_tokens": 0, "confidence_threshold": 0.5, "handback_after": 3, "draft_lines": 1},
        ),
        ({"mode": "on_demand"}, {"draft_lines": 2}, {"confidence_threshold": 0.5, "draft_lines": 1}),
        ({"mode": "adaptive"}, {}, {"handback_after": 3}),
    ],
)
def test_turns_are_as_the_request_says_then_the_settings_then_the_mode(
    wishes: dict[str, Any], settings: dict[str, Any], taking_turns: dict[str, Any]
) -> None:
    decided = plan("gkt", GktOptions(**wishes), None, EdgeSettings(**settings))
    assert decided.mode is Mode(wishes["mode"])
    assert {name: getattr(decided, name) for name in taking_turns} == taking_turns


@pytest.mark.parametrize(
    ("model", "wishes", "rollout_fraction", "lot", "mode", "policy"),
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
def test_a_mode_is_for_its_share_of_the_requests_that_do_not_name_it(
    model: str, wishes: dict[str, Any], rollout_fraction: float, lot: float, mode: str, policy: str | None
) -> None:
    settings = EdgeSettings(mode=Mode.REVIEW, rollout_fraction=rollout_fraction)
    decided = plan(model, GktOptions(**wishes), None, settings, policy="maths", lot=lambda: lot)
    assert (decided.mode, decided.policy, decided.budget > 0) == (Mode(mode), policy, mode != "off")


def test_a_structured_answer_draws_too() -> None:
    settings = EdgeSettings(mode=Mode.REVIEW, rollout_fraction=0.5)
    assert [
        plan("gkt", None, None, settings, structured=True, lot=draw).mode for draw in (lambda: 0.4, lambda: 0.6)
    ] == ["fixed", "off"]


def test_lots_are_even_and_the_same_of_the_same_prompt_and_seed() -> None:
    lots = [lot([1, 2, last], 0) for last in range(1000)]
    assert lots == [lot([1, 2, last], 0) for last in range(1000)]
    assert all(0 <= one < 1 for one in lots)
    tenths = [sum(int(one * 10) == tenth for one in lots) for tenth in range(10)]
    assert min(tenths) > 60, "a hundred each; four standard deviations are 38"
    other = [lot([1, 2, last], 1) for last in range(1000)]
    assert sum((one < 0.5) == (two < 0.5) for one, two in zip(lots, other, strict=True)) in range(400, 600)
    assert lot([7], None) == lot([7], None) != lot([7], 0)
