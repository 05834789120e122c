"""Parsed streams with arrival times.

While a stream runs, clients only store bytes and times; they parse when it has ended, because client and server share the cores.
All times are seconds from the request's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from evaluation.figures import NotMeasured, median, ratio
from shared.errors import StreamBroken, StreamError
from shared.protocol.answer_stream import recorded_answer_chunks
from shared.protocol.gkt import ChunkSource, GktReport, Source
from shared.protocol.guidance import Done, Failure, Guidance
from shared.protocol.sse import TimedBytes, decode_recorded


@dataclass(frozen=True)
class TimedChunk:
    """A piece of an answer's text."""

    at_s: float
    text: str
    source: Source


@dataclass(frozen=True)
class TimedAnswer:
    """A streamed answer of the edge. `chunks` are those with text; `total_s` is the time of the stream's end."""

    chunks: Sequence[TimedChunk]
    total_s: float
    end: str
    report: GktReport

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def tokens(self) -> int:
        """Tokens of student and teacher, each in its own vocabulary."""
        return self.report.student.completion_tokens + self.teacher_tokens

    @property
    def teacher_tokens(self) -> int:
        return self.report.teacher.completion_tokens if self.report.teacher else 0

    @property
    def first_text_s(self) -> float:
        if not self.chunks:
            raise NotMeasured("the answer has no text")
        return self.chunks[0].at_s

    def times(self, source: Source) -> list[float]:
        return [chunk.at_s for chunk in self.chunks if chunk.source is source]

    @property
    def handover_gap_s(self) -> float:
        """Time between the teacher's last chunk and the student's first."""
        teacher, student = self.times(Source.TEACHER), self.times(Source.STUDENT)
        if not teacher or not student:
            raise NotMeasured("the answer has no handover: either the teacher or the student wrote all of it")
        return student[0] - teacher[-1]

    @property
    def inter_token_s(self) -> float:
        """Median time between two chunks of the student, which hold one token each."""
        return median([later - earlier for earlier, later in pairwise(self.times(Source.STUDENT))])

    @property
    def student_rate(self) -> float:
        """Tokens per second of the student, from its first token to its last."""
        times = self.times(Source.STUDENT)
        if len(times) < 2:
            raise NotMeasured("the student wrote fewer than two tokens")
        return ratio(self.report.student.completion_tokens - 1, times[-1] - times[0])


@dataclass(frozen=True)
class TimedGuidance:
    """A guidance stream of the cloud. `done` is None if the stream was cut off."""

    guidance: Sequence[tuple[float, Guidance]]
    end_s: float
    done: Done | None

    @property
    def first_text_s(self) -> float:
        first = next((at_s for at_s, guidance in self.guidance if guidance.text), None)
        if first is None:
            raise NotMeasured("the teacher wrote no text")
        return first

    @property
    def rate(self) -> float:
        """Tokens per second, from the first event to the last."""
        if len(self.guidance) < 2:
            raise NotMeasured("the teacher sent fewer than two events with tokens")
        after_first = sum(guidance.count for _, guidance in self.guidance[1:])
        return ratio(after_first, self.guidance[-1][0] - self.guidance[0][0])


def parse_answer(reads: Sequence[TimedBytes], *, degraded: bool = False) -> TimedAnswer:
    """Parse an answer of the edge.

    Raise NotMeasured if it is not complete; unless `degraded`, also if the student continued because the cloud failed.
    """
    chunks: list[TimedChunk] = []
    end: str | None = None
    report: GktReport | None = None
    try:
        for at_s, chunk in recorded_answer_chunks(reads):
            if isinstance(chunk.gkt, GktReport):
                report = chunk.gkt
            for choice in chunk.choices:
                end = choice.finish_reason or end
                if choice.delta.content and isinstance(chunk.gkt, ChunkSource):
                    chunks.append(TimedChunk(at_s, choice.delta.content, chunk.gkt.source))
    except StreamError as error:
        raise NotMeasured(f"the edge's stream: {error}") from error
    if report is None or end is None:
        raise NotMeasured("the edge's stream has no report or no finish reason")
    if report.fallback and not degraded:
        raise NotMeasured(f"the student continued without the cloud: {report.fallback}")
    return TimedAnswer(chunks, reads[-1][0], end, report)


def parse_guidance(reads: Sequence[TimedBytes]) -> TimedGuidance:
    """Parse a guidance stream. Raise NotMeasured if it reports a failure or is invalid."""
    found: list[tuple[float, Guidance]] = []
    done: Done | None = None
    at_s = 0.0
    try:
        for at_s, event in decode_recorded(reads):
            match event:
                case Guidance():
                    found.append((at_s, event))
                case Done():
                    done = event
                case Failure():
                    raise NotMeasured(f"the cloud's stream failed: {event.code}: {event.message}")
    except StreamBroken:
        pass  # it was cut off
    except StreamError as error:
        raise NotMeasured(f"the cloud's stream: {error}") from error
    return TimedGuidance(found, at_s, done)
