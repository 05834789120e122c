"""Detects that the student would have written the teacher's last tokens itself, so that it may take over."""

from __future__ import annotations

from collections.abc import Sequence

from edge_student.student import Score


def agrees(scores: Sequence[Score], text: str, count: int) -> bool:
    """Return whether the last `count` teacher tokens were the student's top choices. 0 never agrees.

    `text` is the teacher's text so far. The result is False inside a number: agreement on its first digits does not imply
    agreement on the next ones.
    """
    if not count or len(scores) < count or text[-1:].isdigit():
        return False
    return all(score.rank == 0 for score in scores[-count:])
