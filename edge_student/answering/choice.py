"""One choice of an answer as it grows: its text, who wrote which part, and stop strings across the handover."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from edge_student.answering.stop_strings import StopFinder
from edge_student.student import Score
from shared.protocol.gkt import GktReport, Segment, Source
from shared.protocol.guidance import Usage
from shared.protocol.openai_responses import AnswerEnd, TokenLogprob


@dataclass(frozen=True)
class TextPart:
    """Text of a choice that may be shown to the client."""

    index: int
    text: str
    source: Source
    logprobs: tuple[TokenLogprob, ...] = ()
    token_ids: tuple[int, ...] = ()
    """Ids of the student's tokens."""


@dataclass(frozen=True)
class PromptUsage:
    """Token counts of a prompt: all, and those that were in the cache."""

    index: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class PromptScores:
    """Scores of the prompt under the student, from the requested position on. Precedes all other parts of a choice."""

    index: int
    scores: Sequence[Score]


@dataclass(frozen=True)
class ChoiceEnded:
    """A choice is complete."""

    index: int
    reason: AnswerEnd
    logprob: TokenLogprob | None = None
    """Log-probability of the end, if the student set it. The end is not part of the text."""
    stop: str | None = None
    """The stop string that ended it, if one did."""


@dataclass(frozen=True)
class Finished:
    """All choices are complete: the report and the usage."""

    report: GktReport
    usage: Usage


Part = PromptUsage | PromptScores | TextPart | ChoiceEnded | Finished


class Choice:
    """Takes text from either model and returns the parts of it that may be shown."""

    def __init__(self, index: int, stops: Sequence[str], *, show_stop: bool = False) -> None:
        self.index = index
        self.reason: AnswerEnd | None = None
        self.segments: list[Segment] = []
        self._stops = StopFinder(stops, show=show_stop)
        self._unshown: deque[tuple[Segment, int]] = deque()
        """Segments of the text that the stop finder holds back, in order, with the lengths of their text."""
        self._logprobs: list[TokenLogprob] = []
        self._ids: list[int] = []

    @property
    def ended(self) -> bool:
        return self.reason is not None

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.segments)

    def tokens_of(self, source: Source) -> int:
        return sum(segment.tokens for segment in self.segments if segment.source is source)

    def take(
        self,
        text: str,
        source: Source,
        *,
        tokens: int = 0,
        logprobs: Sequence[TokenLogprob] = (),
        ids: Sequence[int] = (),
    ) -> list[TextPart | ChoiceEnded]:
        """Add text. The choice ends here if it completes a stop string."""
        segment = self._segment(source)
        segment.tokens += tokens
        self._logprobs += logprobs
        self._ids += ids
        if text:
            self._unshown.append((segment, len(text)))
        parts: list[TextPart | ChoiceEnded] = [*self._show(self._stops.push(text))]
        if self._stops.found is not None:
            parts += self.end("stop")
        return parts

    def end(self, reason: AnswerEnd, logprob: TokenLogprob | None = None) -> list[TextPart | ChoiceEnded]:
        """End the choice, and show the text that is still held back."""
        parts: list[TextPart | ChoiceEnded] = [*self._show(self._stops.flush())]
        if self._logprobs or self._ids:
            parts.append(self._part("", self.segments[-1].source))
        self.reason = reason
        return [*parts, ChoiceEnded(self.index, reason, logprob, self._stops.found)]

    def _show(self, text: str) -> list[TextPart]:
        parts: list[TextPart] = []
        at = 0
        while at < len(text):
            segment, length = self._unshown.popleft()
            shown = min(length, len(text) - at)
            if shown < length:
                self._unshown.appendleft((segment, length - shown))
            segment.chars += shown
            parts.append(self._part(text[at : at + shown], segment.source))
            at += shown
        return parts

    def _part(self, text: str, source: Source) -> TextPart:
        """Return text as a part, with the log-probabilities and ids that have accumulated."""
        part = TextPart(self.index, text, source, tuple(self._logprobs), tuple(self._ids))
        self._logprobs, self._ids = [], []
        return part

    def _segment(self, source: Source) -> Segment:
        """Return the current segment of a source, a new one if the other source wrote last."""
        if not self.segments or self.segments[-1].source is not source:
            self.segments.append(Segment(source=source, chars=0, tokens=0))
        return self.segments[-1]
