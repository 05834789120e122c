"""What every benchmark returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from evaluation.figures import Figure

REST_S = 0.2
"""Between two measurements, so that nothing of the one still runs in the other."""


@dataclass(frozen=True)
class Result:
    """Figures, and under other names the medians that they were made of."""

    figures: list[Figure]
    raw: dict[str, float] = field(default_factory=dict)


Say = Callable[[str], None]
