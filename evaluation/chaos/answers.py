"""Strict parser of the edge's answers: any defect of form makes an answer malformed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from pydantic import ValidationError

from shared.errors import StreamError
from shared.protocol.answer_stream import AnswerFailed, recorded_answer_chunks
from shared.protocol.gkt import ChunkSource, GktReport, Source
from shared.protocol.guidance import ErrorBody
from shared.protocol.openai_responses import ChatCompletion
from shared.protocol.sse import TimedBytes


class MalformedAnswer(Exception):
    """A response is neither a complete answer nor an error in OpenAI's format."""


@dataclass(frozen=True)
class TextRun:
    """Consecutive text from one source. `at` is its offset in the answer."""

    source: Source
    text: str
    at: int


@dataclass(frozen=True)
class ParsedAnswer:
    """A complete answer with one choice."""

    text: str
    finish: str
    report: GktReport

    @property
    def tokens(self) -> int:
        return sum(segment.tokens for segment in self.report.segments[0])

    @property
    def runs(self) -> list[TextRun]:
        """The text of each segment in the report. Raises MalformedAnswer if the segments do not match the text."""
        if len(self.report.segments) != 1:
            raise MalformedAnswer(f"the report has {len(self.report.segments)} choices instead of one")
        runs: list[TextRun] = []
        at = 0
        for segment in self.report.segments[0]:
            runs.append(TextRun(segment.source, self.text[at : at + segment.chars], at))
            at += segment.chars
        if at != len(self.text):
            raise MalformedAnswer(f"the segments have {at} characters, the text has {len(self.text)}")
        return runs


def parse(status: int, body: bytes, *, stream: bool) -> ParsedAnswer | ErrorBody:
    """Parse a response. Raise MalformedAnswer."""
    try:
        if status != 200:
            return _check_error(ErrorBody.model_validate_json(body))
        answer = _parse_stream(body) if stream else _parse_whole(body)
    except AnswerFailed as failure:
        return _check_error(ErrorBody(error=failure.detail))
    except (ValidationError, StreamError) as error:
        raise MalformedAnswer(f"status {status}: {error}") from error
    _ = answer.runs
    return answer


def _check_error(error: ErrorBody) -> ErrorBody:
    if not (error.error.message and error.error.code):
        raise MalformedAnswer("the error has no message or no code")
    return error


def _parse_whole(body: bytes) -> ParsedAnswer:
    answer = ChatCompletion.model_validate_json(body)
    if len(answer.choices) != 1:
        raise MalformedAnswer(f"there are {len(answer.choices)} choices")
    choice = answer.choices[0]
    return ParsedAnswer(choice.message.content or "", choice.finish_reason, answer.gkt)


def _parse_stream(body: bytes) -> ParsedAnswer:
    chunks = [chunk for _, chunk in recorded_answer_chunks([(0.0, body)])]
    if len({chunk.id for chunk in chunks}) != 1:
        raise MalformedAnswer(f"the stream has chunks of several answers: {sorted({chunk.id for chunk in chunks})}")
    choices = [(choice, chunk.gkt) for chunk in chunks for choice in chunk.choices]
    if not choices or choices[0][0].delta.role != "assistant":
        raise MalformedAnswer("the stream does not begin with a role")
    reports = [chunk.gkt for chunk in chunks if isinstance(chunk.gkt, GktReport)]
    ends = [choice.finish_reason for choice, _ in choices if choice.finish_reason]
    if len(reports) != 1 or len(ends) != 1:
        raise MalformedAnswer(f"the stream has {len(reports)} reports and {len(ends)} finish reasons")
    answer = ParsedAnswer("".join(choice.delta.content or "" for choice, _ in choices), ends[0], reports[0])
    pieces = [(gkt.source, c.delta.content) for c, gkt in choices if isinstance(gkt, ChunkSource) and c.delta.content]
    if _merged(pieces) != _merged([(run.source, run.text) for run in answer.runs if run.text]):
        raise MalformedAnswer("the sources of the chunks differ from those of the report")
    return answer


def _merged(pieces: list[tuple[Source, str]]) -> list[tuple[Source, str]]:
    """Join neighbours of the same source."""
    runs = groupby(pieces, key=lambda piece: piece[0])
    return [(source, "".join(text for _, text in run)) for source, run in runs]


def first_text(reads: Sequence[TimedBytes]) -> tuple[float, Source] | None:
    """Return time and source of the first text in a stream that may still run."""
    with suppress(StreamError):  # the stream still runs, or `parse` will reject it
        for at_s, chunk in recorded_answer_chunks(reads):
            if isinstance(chunk.gkt, ChunkSource) and any(choice.delta.content for choice in chunk.choices):
                return at_s, chunk.gkt.source
    return None
