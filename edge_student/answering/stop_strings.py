"""Stop strings over a text that arrives in pieces, without ever letting a part of one out."""

from __future__ import annotations

from collections.abc import Sequence


class StopFinder:
    """Looks for the first of some stop strings. What could still become one is held back."""

    def __init__(self, stops: Sequence[str], *, show: bool = False) -> None:
        """`show`: the stop string that is found is part of what may be shown."""
        self._stops = tuple(stops)
        self._show = show
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Text that is safe to show. After a stop string was found, what stands before it, and nothing more."""
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
        """The text has ended: what was held back, which is no stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`, but not all of it."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
