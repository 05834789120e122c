"""Small pictures as SVG: what charts are drawn with. Whatever text comes in is escaped; nothing is loaded from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from typing import Literal, NamedTuple

FONT_PX = 12
CHAR_PX = 7.2
"""A character's width, on average, on the safe side."""

# Okabe and Ito's palette, told apart with any colour vision: https://jfly.uni-koeln.de/color/
BLUE = "#0072B2"
VERMILION = "#D55E00"
ORANGE = "#E69F00"
SKY = "#56B4E9"
BLACK = "#000000"
INK = "#222222"
GREY = "#767676"
PALE = "#D9D9D9"
WHITE = "#FFFFFF"


class Shape(StrEnum):
    CIRCLE = "circle"
    SQUARE = "square"
    DIAMOND = "diamond"
    TRIANGLE = "triangle"


class Scale(NamedTuple):
    """From values to pixels, straight or by logarithms."""

    low: float
    high: float
    from_px: float
    to_px: float
    log: bool = False

    def __call__(self, value: float) -> float:
        at = (self._of(value) - self._of(self.low)) / (self._of(self.high) - self._of(self.low))
        return self.from_px + at * (self.to_px - self.from_px)

    def _of(self, value: float) -> float:
        return math.log(value) if self.log else value


@dataclass
class Picture:
    """Shapes in the order in which they are drawn. Pixels from the upper left corner; the page scales the whole."""

    width: float
    height: float
    title: str
    """What the picture shows, for those who cannot see it."""
    _parts: list[str] = field(default_factory=list)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, *, color: str = INK, width: float = 1, dash: str = ""
    ) -> None:
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width:g}"{dashes}/>'
        )

    def way(self, points: Sequence[tuple[float, float]], *, color: str, width: float = 1.5, dash: str = "") -> None:
        """A line over several points."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polyline points="{at}" fill="none" stroke="{color}" stroke-width="{width:g}"{dashes}/>')

    def box(self, x: float, y: float, width: float, height: float, *, fill: str, stroke: str = "none") -> None:
        self._parts.append(
            f'<rect x="{x:.2f}" y="{y:.2f}" width="{max(0, width):.2f}" height="{height:.2f}" fill="{fill}" stroke="{stroke}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: Literal["start", "middle", "end"] = "start",
        color: str = INK,
        turned: bool = False,
    ) -> None:
        """`y` is the base line. A white rim keeps the text readable over lines."""
        turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" stroke="{WHITE}" stroke-width="3" '
            f'stroke-linejoin="round" paint-order="stroke"{turn}>{escape(text)}</text>'
        )

    def mark(self, x: float, y: float, shape: Shape, color: str, *, filled: bool = True, note: str = "") -> None:
        """`note` is shown where the pointer rests."""
        title = f"<title>{escape(note)}</title>" if note else ""
        ink = f'fill="{color if filled else WHITE}" stroke="{color}" stroke-width="1.8"'
        if shape is Shape.CIRCLE:
            self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {ink}>{title}</circle>')
            return
        shapes: dict[Shape, Sequence[tuple[float, float]]] = {
            Shape.SQUARE: [(-4.2, -4.2), (4.2, -4.2), (4.2, 4.2), (-4.2, 4.2)],
            Shape.DIAMOND: [(0, -6), (6, 0), (0, 6), (-6, 0)],
            Shape.TRIANGLE: [(0, -5.5), (5.2, 4), (-5.2, 4)],
        }
        at = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in shapes[shape])
        self._parts.append(f'<polygon points="{at}" {ink}>{title}</polygon>')

    def raw(self, part: str) -> None:
        """SVG of our own; never text of others."""
        self._parts.append(part)

    def render(self, *, css_class: str = "chart") -> str:
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="{css_class}" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'role="img" aria-label="{escape(self.title)}" font-family="system-ui, sans-serif" font-size="{FONT_PX}">'
            f"{''.join(self._parts)}</svg>"
        )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values within a range, some `about` of them, 1, 2 or 5 times a power of ten apart.

    Source: P. S. Heckbert, Nice numbers for graph labels, Graphics Gems (1990).
    """
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in (1, 2, 5, 10) if nice * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def fitting(text: str, px: float) -> str:
    """The text, or as much of its beginning as fits."""
    room = int(px / CHAR_PX)
    return text if len(text) <= room else text[: max(1, room - 1)] + "…"
