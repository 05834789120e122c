"""Where the names of points go, so that they cover neither each other nor the points, and lines as little as can be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from evaluation.lab.report.svg import CHAR_PX, FONT_PX

_MARK_PX = 6
_AWAY_PX = (9, 17, 26, 36, 48, 62, 78)
_LINE_PX = 3
_STEP_PX = 5
_WAYS = ((1, 0), (-1, 0), (0, -1), (0, 1), (0.7, -0.7), (0.7, 0.7), (-0.7, -0.7), (-0.7, 0.7))


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: Box) -> float:
        """The area that both cover, in square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def outside(self, other: Box) -> float:
        """The area that is not within the other."""
        return (self.right - self.left) * (self.bottom - self.top) - self.shared(other)


class Label(NamedTuple):
    text: str
    x: float
    y: float
    """The base line."""
    anchor: Literal["start", "middle", "end"]
    leader: tuple[float, float] | None
    """From the point to here goes a thin line, where the label is away from it."""


def placed(
    points: Sequence[tuple[float, float, str]], within: Box, lines: Sequence[Sequence[tuple[float, float]]] = ()
) -> list[Label]:
    """A label for each point (x, y, text), in their order, where it covers least and is near. To cover other labels, or points,
    or to leave the frame, is far worse than to cover a line or to be away.
    """
    drawn = [box for line in lines for box in _along(line)]
    marks = [Box(x - _MARK_PX, y - _MARK_PX, x + _MARK_PX, y + _MARK_PX) for x, y, _ in points]
    taken: list[Box] = []
    labels: list[Label] = []
    for at, (x, y, text) in enumerate(points):
        others = [mark for place, mark in enumerate(marks) if place != at]
        best: tuple[float, Box, Label] | None = None
        for box, label in _candidates(x, y, text):
            cost = 50 * (sum(box.shared(other) for other in [*others, *taken]) + 2 * box.outside(within))
            cost += sum(box.shared(other) for other in drawn) + math.dist((x, y), (label.x, label.y))
            if best is None or cost < best[0] - 1e-6:
                best = cost, box, label
        if best:
            taken.append(best[1])
            labels.append(best[2])
    return labels


def _candidates(x: float, y: float, text: str) -> list[tuple[Box, Label]]:
    """Nearest first."""
    width, height = len(text) * CHAR_PX, FONT_PX
    found: list[tuple[Box, Label]] = []
    for away in _AWAY_PX:
        for right, down in _WAYS:
            to_x, to_y = x + right * away, y + down * away
            anchor: Literal["start", "middle", "end"] = "start" if right > 0 else "end" if right else "middle"
            left = {"start": to_x, "end": to_x - width, "middle": to_x - width / 2}[anchor]
            middle = to_y + down * height / 2
            box = Box(left, middle - height / 2, left + width, middle + height / 2)
            leader = (to_x, to_y) if away > _AWAY_PX[1] else None
            found.append((box, Label(text, to_x, middle + height * 0.35, anchor, leader)))
    return found


def _along(line: Sequence[tuple[float, float]]) -> Iterator[Box]:
    """Small boxes over a line."""
    half = _LINE_PX / 2
    for start, end in pairwise(line):
        steps = max(1, round(math.dist(start, end) / _STEP_PX))
        for step in range(steps):
            x, y = (from_ + (to - from_) * step / steps for from_, to in zip(start, end, strict=True))
            yield Box(x - half, y - half, x + half, y + half)
