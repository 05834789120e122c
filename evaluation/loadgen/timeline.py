"""What came over the wire, and when: server-sent events with the moment at which each was complete at the client.

Reads are only noted while a stream runs; they are parsed once it has ended, so that the client takes no time from what it
measures on the same cores. All times are seconds from the request's start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import ValidationError

from evaluation.figures import NotMeasured, median, ratio
from shared.protocol.gkt import ChunkSource, GktReport, Source
from shared.protocol.guidance import Done, Failure, Guidance
from shared.protocol.openai import ChatCompletionChunk

Read = tuple[float, bytes]
"""When some bytes arrived, and the bytes."""


@dataclass(frozen=True)
class Event:
    """A server-sent event. `at_s` is when its last byte arrived."""

    at_s: float
    name: str
    data: str


def events(reads: Iterable[Read]) -> list[Event]:
    """The complete events of a stream, as our services write them: lines end in a newline. Comments are left out."""
    found: list[Event] = []
    pending = b""
    for at_s, data in reads:
        *blocks, pending = (pending + data).split(b"\n\n")
        for block in blocks:
            fields = [line.partition(": ") for line in block.decode().split("\n")]
            values = [value for name, _, value in fields if name == "data"]
            if values:
                names = [value for name, _, value in fields if name == "event"]
                found.append(Event(at_s, names[-1] if names else "message", "\n".join(values)))
    return found


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


def answer(reads: Sequence[Read], *, degraded: bool = False) -> Answer:
    """Raises NotMeasured for a stream that is no whole answer, and unless `degraded` for one in which the student stood in."""
    chunks: list[Chunk] = []
    end: str | None = None
    report: GktReport | None = None
    stream = events(reads)
    if not stream or stream[-1].data != "[DONE]":
        raise NotMeasured("the edge's stream ended early")
    for event in stream[:-1]:
        try:
            chunk = ChatCompletionChunk.model_validate_json(event.data)
        except ValidationError as error:
            raise NotMeasured(f"the edge sent what is no chunk: {event.data[:200]}") from error
        if isinstance(chunk.gkt, GktReport):
            report = chunk.gkt
        for choice in chunk.choices:
            end = choice.finish_reason or end
            if choice.delta.content and isinstance(chunk.gkt, ChunkSource):
                chunks.append(Chunk(event.at_s, choice.delta.content, chunk.gkt.source))
    if report is None or end is None:
        raise NotMeasured("the edge's stream has no report, or no finish reason")
    if report.fallback and not degraded:
        raise NotMeasured(f"the student had to go on without the cloud: {report.fallback}")
    return Answer(chunks, stream[-1].at_s, end, report)


def guidance(reads: Sequence[Read]) -> GuidanceRun:
    """Raises NotMeasured for a stream that is not whole."""
    written: list[tuple[float, Guidance]] = []
    done: Done | None = None
    for event in events(reads):
        try:
            match event.name:
                case Guidance.event:
                    written.append((event.at_s, Guidance.model_validate_json(event.data)))
                case Done.event:
                    done = Done.model_validate_json(event.data)
                case Failure.event:
                    raise NotMeasured(f"the cloud failed: {event.data[:200]}")
        except ValidationError as error:
            raise NotMeasured(f"the cloud sent what is not of the protocol: {event.data[:200]}") from error
    if done is None:
        raise NotMeasured("the cloud's stream ended early")
    first = next((at_s for at_s, event in written if event.text), None)
    if first is None or len(written) < 2:
        raise NotMeasured("the teacher wrote no text")
    after_first = sum(event.count for _, event in written[1:])
    return GuidanceRun(first, ratio(after_first, written[-1][0] - written[0][0]), done)
