"""What a request gets, decided from its wishes and the edge's settings."""

from __future__ import annotations

from typing import Any

import pytest

from edge_student.policy import plan
from edge_student.settings import EdgeSettings
from shared.guided import GktOptions, Mode


@pytest.mark.parametrize(
    ("wishes", "settings", "taking_turns"),
    [
        ({"mode": "review"}, {}, {"doubt": 0.5, "turn": 1, "sure": 0.1, "agree": 0, "lines": 1}),
        ({"mode": "review", "turn": 4}, {}, {"turn": 4, "agree": 3}),
        ({"mode": "review", "turn": 0}, {}, {"turn": 0, "agree": 3}),
        ({"mode": "review", "lines": 3}, {}, {"sure": 0.0, "lines": 3}),
        ({"mode": "review", "lines": 3, "sure": 0.2}, {}, {"sure": 0.2}),
        ({"mode": "review"}, {"lines": 2}, {"sure": 0.0, "lines": 2}),
        ({"mode": "review"}, {"turn": 2, "agree": 1}, {"turn": 2, "agree": 1}),
        ({"mode": "on_demand"}, {}, {"turn": 0, "sure": 0.5, "agree": 3, "lines": 1}),
        ({"mode": "on_demand"}, {"lines": 2}, {"sure": 0.5, "lines": 1}),
        ({"mode": "adaptive"}, {}, {"agree": 3}),
    ],
)
def test_turns_are_as_the_request_says_then_the_settings_then_the_mode(
    wishes: dict[str, Any], settings: dict[str, Any], taking_turns: dict[str, Any]
) -> None:
    decided = plan("gkt", GktOptions(**wishes), None, EdgeSettings(**settings))
    assert decided.mode is Mode(wishes["mode"])
    assert {name: getattr(decided, name) for name in taking_turns} == taking_turns
