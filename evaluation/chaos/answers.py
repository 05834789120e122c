"""An answer of an edge as its client reads it, strictly: what is not well-formed is no answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from pydantic import ValidationError

from shared.errors import StreamError
from shared.protocol.answer_stream import AnswerFailed, recorded_answer_chunks
from shared.protocol.gkt import ChunkSource, GktReport, Source
from shared.protocol.guidance import ErrorBody
from shared.protocol.openai import ChatCompletion, ChunkChoice


class FirstText:
    """Hears a stream until somebody has written something, and stays where that is the teacher."""

    def __init__(self) -> None:
        self.at_s: float | None = None
        """By `time.monotonic`; None where nothing is written yet."""
        self.source: Source | None = None

    def __call__(self, body: bytes) -> bool:
        if self.at_s is None and (source := _first_source(body)):
            self.at_s, self.source = time.monotonic(), source
        return self.source is not Source.STUDENT


class Malformed(Exception):
    """What came is neither a whole answer nor an error in OpenAI's shape."""


@dataclass(frozen=True)
class Part:
    """A run of an answer from one source, as the report has it."""

    source: Source
    text: str
    at: int


@dataclass(frozen=True)
class Answer:
    """A complete answer with one choice."""

    text: str
    finish: str
    report: GktReport
    tokens: int
    """That the segments count."""

    @property
    def parts(self) -> list[Part]:
        """Raises Malformed where the report's segments are not the text's."""
        parts: list[Part] = []
        at = 0
        for segment in self.report.segments[0]:
            parts.append(Part(segment.source, self.text[at : at + segment.chars], at))
            at += segment.chars
        if at != len(self.text):
            raise Malformed(f"the segments have {at} characters, the text {len(self.text)}")
        return parts


def read(status: int, body: bytes, *, stream: bool) -> Answer | ErrorBody:
    """What a client was sent. Raises Malformed."""
    try:
        if status != 200:
            return _error(ErrorBody.model_validate_json(body))
        return _streamed(body) if stream else _whole(body)
    except (ValidationError, StreamError) as error:
        raise Malformed(f"status {status}: {error}") from error


def _error(error: ErrorBody) -> ErrorBody:
    if not (error.error.message and error.error.code):
        raise Malformed("the error says neither what nor why")
    return error


def _whole(body: bytes) -> Answer:
    answer = ChatCompletion.model_validate_json(body)
    if len(answer.choices) != 1:
        raise Malformed(f"there are {len(answer.choices)} choices")
    choice = answer.choices[0]
    return _checked(Answer(choice.message.content or "", choice.finish_reason, answer.gkt, _tokens(answer.gkt)))


def _streamed(body: bytes) -> Answer | ErrorBody:
    try:
        chunks = [chunk for _, chunk in recorded_answer_chunks([(0.0, body)])]
    except AnswerFailed as failure:
        return _error(ErrorBody(error=failure.detail))
    if len({chunk.id for chunk in chunks}) != 1:
        raise Malformed(f"the stream has chunks of several answers: {sorted({chunk.id for chunk in chunks})}")
    choices = [(choice, chunk.gkt) for chunk in chunks for choice in chunk.choices]
    if not choices or choices[0][0].delta.role != "assistant":
        raise Malformed("the stream does not begin with a role")
    reports = [chunk.gkt for chunk in chunks if isinstance(chunk.gkt, GktReport)]
    ends = [choice.finish_reason for choice, _ in choices if choice.finish_reason]
    if len(reports) != 1 or len(ends) != 1:
        raise Malformed(f"the stream has {len(reports)} reports and {len(ends)} ends")
    content = "".join(choice.delta.content or "" for choice, _ in choices)
    answer = _checked(Answer(content, ends[0], reports[0], _tokens(reports[0])))
    told = _told(choices)
    if told != [(part.source, part.text) for part in _joined(answer.parts)]:
        raise Malformed("who wrote what is another in the chunks than in the report")
    return answer


def _first_source(body: bytes) -> Source | None:
    """Who wrote the first text of a stream that may not be over."""
    with suppress(StreamError):  # the stream is not over, or `read` rejects it
        for _, chunk in recorded_answer_chunks([(0.0, body)]):
            if isinstance(chunk.gkt, ChunkSource) and any(choice.delta.content for choice in chunk.choices):
                return chunk.gkt.source
    return None


def _told(choices: Sequence[tuple[ChunkChoice, ChunkSource | GktReport | None]]) -> list[tuple[Source, str]]:
    pieces = [(gkt.source, c.delta.content) for c, gkt in choices if isinstance(gkt, ChunkSource) and c.delta.content]
    runs = groupby(pieces, key=lambda piece: piece[0])
    return [(source, "".join(text for _, text in run)) for source, run in runs]


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Without empty ones; neighbours of the same source are one."""
    runs = [list(run) for _, run in groupby((p for p in parts if p.text), key=lambda part: part.source)]
    return [Part(run[0].source, "".join(part.text for part in run), run[0].at) for run in runs]


def _tokens(report: GktReport) -> int:
    return sum(segment.tokens for choice in report.segments for segment in choice)


def _checked(answer: Answer) -> Answer:
    if len(answer.report.segments) != 1:
        raise Malformed(f"the report is of {len(answer.report.segments)} choices")
    _ = answer.parts
    return answer
