from __future__ import annotations

import pytest

from shared.prompting.word_boundaries import wraps_up


@pytest.mark.parametrize(
    ("before", "text", "left", "expected"),
    [
        ("n", " April", 4, False),
        ("n", " April", 3, True),
        ("A", "pril", 1, False),
        ("A", "pril", 0, True),
        ("", " April", 1, False),
        ("。", "四", 1, True),
    ],
)
def test_guidance_wraps_up_where_a_word_begins_near_the_budgets_end(
    before: str, text: str, left: int, expected: bool
) -> None:
    assert wraps_up(before, text, left) is expected
