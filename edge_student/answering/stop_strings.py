"""Finds stop strings in a text that arrives in pieces. No part of a stop string is released."""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Finds the first of several stop strings. Text that could still become one is held back."""

    def __init__(self, stops: Sequence[str], *, show: bool = False) -> None:
        """With `show` the stop string is part of the released text."""
        self._stops = tuple(stops)
        self._show = show
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Add text. Returns the text that may be shown; behind a stop string there is none."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        held = self._held + text
        starts = [(at, stop) for stop in self._stops if (at := held.find(stop)) >= 0]
        if starts:
            at, self.found = min(starts, key=lambda start: start[0])
            self._held = ""
            return held[: at + len(self.found) if self._show else at]
        keep = max(_overlap(held, stop) for stop in self._stops)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def flush(self) -> str:
        """End the text. Returns the text that was held back, which is no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a proper prefix of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
