"""Questions that one arm has right and another wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from evaluation.lab.analysis.arm_summary import TaskSummary
from evaluation.lab.arm_names import is_plain
from evaluation.lab.results.rows import Arms, Row
from shared.protocol.gkt import Source


class Change(NamedTuple):
    """One question under both arms."""

    a: Row
    b: Row


@dataclass(frozen=True, slots=True)
class Changes:
    """Questions wrong under A and right under B (`fixed`), and the reverse (`broken`)."""

    fixed: tuple[Change, ...]
    broken: tuple[Change, ...]


class Piece(NamedTuple):
    """Text of an answer from one source; None after the last segment, if the source is not known."""

    source: Source | None
    text: str


def changes(arms: Arms, a: str, b: str) -> Changes:
    """Raises KeyError if one of the arms has no rows."""
    pairs = [Change(row, arms[b][question]) for question, row in arms[a].items() if question in arms[b]]
    return Changes(
        fixed=tuple(pair for pair in pairs if pair.a.correct is False and pair.b.correct is True),
        broken=tuple(pair for pair in pairs if pair.a.correct is True and pair.b.correct is False),
    )


def best_policy(task: TaskSummary) -> str | None:
    """Return the most accurate arm that is not plain, the cheapest of equals; None without one."""
    arms = [arm for arm in task.arms if arm.accuracy is not None and not is_plain(arm.arm)]
    return max(arms, key=lambda arm: (arm.accuracy or 0.0, -(arm.cost_usd or 0.0))).arm if arms else None


def pieces(row: Row) -> list[Piece]:
    """Return the answer, cut where the source changes."""
    found: list[Piece] = []
    at = 0
    for segment in row.segments:
        if text := row.output[at : at + segment.chars]:
            found.append(Piece(segment.source, text))
        at += segment.chars
    if rest := row.output[at:]:
        found.append(Piece(None, rest))
    return found
