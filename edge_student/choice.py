"""One choice of an answer as it grows: its text, who wrote it, and the stop strings across the seam."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from edge_student.stops import StopFinder
from edge_student.student import Score
from shared.guided import Segment, Source
from shared.openai import AnswerEnd, TokenLogprob


@dataclass(frozen=True)
class Piece:
    """Text of a choice, fit to be shown."""

    index: int
    text: str
    source: Source
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class Scored:
    """How probable the prompt was to the student, from its second token on. Comes before everything else of a choice."""

    index: int
    scores: Sequence[Score]


@dataclass(frozen=True)
class Ended:
    """A choice is complete."""

    index: int
    reason: AnswerEnd
    logprob: TokenLogprob | None = None
    """Of the end that the student itself has set, which is no part of the text."""


class Choice:
    """Takes words from either side, and gives out what may be shown of them."""

    def __init__(self, index: int, stops: Sequence[str]) -> None:
        self.index = index
        self.reason: AnswerEnd | None = None
        self.segments: list[Segment] = []
        self._stops = StopFinder(stops)
        self._unshown: deque[tuple[Segment, int]] = deque()
        """Segments of the text that the stop finder holds, in order, with its lengths."""
        self._logprobs: list[TokenLogprob] = []

    @property
    def ended(self) -> bool:
        return self.reason is not None

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    def tokens_of(self, source: Source) -> int:
        return sum(segment.tokens for segment in self.segments if segment.source is source)

    def take(
        self, text: str, source: Source, *, tokens: int = 0, logprobs: Sequence[TokenLogprob] = ()
    ) -> list[Piece | Ended]:
        """Words arrived. The choice ends here if they complete a stop string."""
        segment = self._segment(source)
        segment.tokens += tokens
        self._logprobs += logprobs
        if text:
            self._unshown.append((segment, len(text)))
        parts: list[Piece | Ended] = [*self._show(self._stops.push(text))]
        if self._stops.found:
            parts += self.end("stop")
        return parts

    def end(self, reason: AnswerEnd, logprob: TokenLogprob | None = None) -> list[Piece | Ended]:
        """Nothing more comes: show what is still held."""
        parts: list[Piece | Ended] = [*self._show(self._stops.flush())]
        if self._logprobs:
            parts.append(Piece(self.index, "", self.segments[-1].source, self._take_logprobs()))
        self.reason = reason
        return [*parts, Ended(self.index, reason, logprob)]

    def _show(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        at = 0
        while at < len(text):
            segment, length = self._unshown.popleft()
            shown = min(length, len(text) - at)
            if shown < length:
                self._unshown.appendleft((segment, length - shown))
            segment.chars += shown
            pieces.append(Piece(self.index, text[at : at + shown], segment.source, self._take_logprobs()))
            at += shown
        return pieces

    def _take_logprobs(self) -> tuple[TokenLogprob, ...]:
        taken, self._logprobs = tuple(self._logprobs), []
        return taken

    def _segment(self, source: Source) -> Segment:
        """The segment that a source writes in now."""
        if not self.segments or self.segments[-1].source is not source:
            self.segments.append(Segment(source=source, chars=0, tokens=0))
        return self.segments[-1]
