"""What came over the wire, and when: server-sent events with the moment at which each was complete at the client.

Reads are only noted while a stream runs; they are parsed once it has ended, so that the client takes no time from what it
measures on the same cores. All times are seconds from the request's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from evaluation.figures import NotMeasured, median, ratio
from shared.errors import StreamError
from shared.protocol.answer_stream import recorded_answer_chunks
from shared.protocol.gkt import ChunkSource, GktReport, Source
from shared.protocol.guidance import Done, Failure, Guidance
from shared.protocol.sse import TimedBytes, decode_recorded


@dataclass(frozen=True)
class Chunk:
    """Text of an answer, or of guidance, that arrived."""

    at_s: float
    text: str
    source: Source


@dataclass(frozen=True)
class Answer:
    """A streamed answer of the edge. `chunks` are those with text, in order; `total_s` is when the stream had ended."""

    chunks: Sequence[Chunk]
    total_s: float
    end: str
    report: GktReport

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def tokens(self) -> int:
        """Tokens of both sides, each in its own vocabulary."""
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
    def seam_gap_s(self) -> float:
        """From the teacher's last chunk to the student's first."""
        teacher, student = self.times(Source.TEACHER), self.times(Source.STUDENT)
        if not teacher or not student:
            raise NotMeasured("the answer has no seam: one side wrote all of it")
        return student[0] - teacher[-1]

    @property
    def inter_token_s(self) -> float:
        """The median time between two of the student's chunks, which hold a token each."""
        times = self.times(Source.STUDENT)
        return median([later - earlier for earlier, later in pairwise(times)])

    @property
    def student_rate(self) -> float:
        """The student's tokens per second, from its first to its last."""
        times = self.times(Source.STUDENT)
        if len(times) < 2:
            raise NotMeasured("the student wrote no two tokens")
        return ratio(self.report.student.completion_tokens - 1, times[-1] - times[0])


@dataclass(frozen=True)
class GuidanceRun:
    """A guidance stream straight from the cloud."""

    first_text_s: float
    rate: float
    """Tokens per second, from the first event to the last."""
    done: Done


def answer(reads: Sequence[TimedBytes], *, degraded: bool = False) -> Answer:
    """Raises NotMeasured for a stream that is no whole answer, and unless `degraded` for one in which the student stood in."""
    chunks: list[Chunk] = []
    end: str | None = None
    report: GktReport | None = None
    try:
        for at_s, chunk in recorded_answer_chunks(reads):
            if isinstance(chunk.gkt, GktReport):
                report = chunk.gkt
            for choice in chunk.choices:
                end = choice.finish_reason or end
                if choice.delta.content and isinstance(chunk.gkt, ChunkSource):
                    chunks.append(Chunk(at_s, choice.delta.content, chunk.gkt.source))
    except StreamError as error:
        raise NotMeasured(f"the edge's stream: {error}") from error
    if report is None or end is None:
        raise NotMeasured("the edge's stream has no report, or no finish reason")
    if report.fallback and not degraded:
        raise NotMeasured(f"the student had to go on without the cloud: {report.fallback}")
    return Answer(chunks, reads[-1][0], end, report)


def guidance(reads: Sequence[TimedBytes]) -> GuidanceRun:
    """Raises NotMeasured for a stream that is not whole."""
    written: list[tuple[float, Guidance]] = []
    done: Done | None = None
    try:
        for at_s, event in decode_recorded(reads):
            match event:
                case Guidance():
                    written.append((at_s, event))
                case Done():
                    done = event
                case Failure():
                    raise NotMeasured(f"the cloud failed: {event.code}: {event.message}")
    except StreamError as error:
        raise NotMeasured(f"the cloud's stream: {error}") from error
    first = next((at_s for at_s, event in written if event.text), None)
    if first is None or done is None or len(written) < 2:
        raise NotMeasured("the teacher wrote no text")
    after_first = sum(event.count for _, event in written[1:])
    return GuidanceRun(first, ratio(after_first, written[-1][0] - written[0][0]), done)
