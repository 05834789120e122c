"""The kinds of arms that statistics tell apart by name."""

from __future__ import annotations

import re
from collections.abc import Iterable

OFF = "off"
"""The student alone: the reference from below."""
TEACHER = "teacher"
"""The teacher alone: the reference from above."""

_FIXED = re.compile(r"fixed:(?:max_guidance_tokens=)?(\d{1,7})")


def fixed_length(arm: str) -> int | None:
    """Return the guidance tokens of an arm `fixed:n`; None for any other."""
    found = _FIXED.fullmatch(arm)
    return int(found[1]) if found else None


def is_plain(arm: str) -> bool:
    """True for the plain method and its ends: student alone, teacher alone, a prefix of fixed length."""
    return arm in {OFF, TEACHER} or fixed_length(arm) is not None


def in_order(arms: Iterable[str]) -> list[str]:
    """Order arms: student alone, prefixes by their length, the others as they come, teacher alone."""

    def place(arm: str) -> tuple[int, int]:
        if arm == OFF:
            return 0, 0
        if arm == TEACHER:
            return 3, 0
        length = fixed_length(arm)
        return (2, 0) if length is None else (1, length)

    return sorted(arms, key=place)
