"""Records tokens, times, cost and the fallback reason of an answer, and reports them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edge_student.answering.choice import Choice
from edge_student.cloud.client import Traffic
from edge_student.student import Score
from shared.protocol.gkt import FallbackReason, GktReport, GuidanceScore, Side
from shared.protocol.guidance import Done, Guidance, Start, Usage, Verdict


class AnswerRecorder:
    """Recorded while an answer is under way. Times are milliseconds from the request's arrival."""

    def __init__(self, mode: str, request_id: str, student: str, *, policy_file: str | None = None) -> None:
        self._mode = mode
        self._policy_file = policy_file
        self._request_id = request_id
        self._started = time.monotonic()
        self._template: str | None = None
        self._cost_usd: float | None = None
        self._before = Side(model="")
        """The teacher's figures before the current call."""
        self.traffic = Traffic()
        self.student = Side(model=student)
        self.teacher: Side | None = None
        self.fallback: FallbackReason | None = None

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def teacher_tokens(self) -> int:
        return self.teacher.completion_tokens if self.teacher else 0

    def teacher_began(self, start: Start) -> None:
        """Record the start of a call to the teacher. Calls of an answer follow one another."""
        self.teacher = self.teacher or Side(model=start.model)
        self.teacher.calls += 1
        self._before = self.teacher.model_copy()
        self._template = start.template

    def teacher_wrote(self, event: Verdict | Guidance) -> None:
        """Record words or a verdict of the teacher."""
        assert self.teacher is not None  # noqa: S101 - a stream has its start first
        if event.usage:
            self._count_prompt(event.usage)
        if isinstance(event, Guidance):
            self._wrote(self.teacher, event.count)

    def teacher_done(self, done: Done) -> None:
        if done.cost_usd is not None:
            self._cost_usd = (self._cost_usd or 0.0) + done.cost_usd
        if self.teacher:
            self._count_prompt(done.usage)
            self.teacher.completion_tokens = self._before.completion_tokens + done.usage.completion_tokens

    def teacher_left(self) -> None:
        """Record that the stream ended, completely or not."""
        if self.teacher:
            self.teacher.total_ms = self._elapsed_ms()
            self.teacher.bytes_sent = self.traffic.sent
            self.teacher.bytes_received = self.traffic.received

    def student_wrote(self, tokens: int) -> None:
        self._wrote(self.student, tokens)

    def student_done(self, cached_tokens: int) -> None:
        """Record the end of the student's part. It found `cached_tokens` of the prompt in its cache."""
        self.student.total_ms = self._elapsed_ms()
        self.student.cached_tokens = cached_tokens

    def usage(self, prompt_tokens: int, answer_tokens: int | None = None) -> Usage:
        """Return the usage for clients. `answer_tokens` counts the answer if not all written tokens are part of it."""
        written = self.student.completion_tokens + self.teacher_tokens
        return Usage(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.student.cached_tokens,
            completion_tokens=written if answer_tokens is None else answer_tokens,
        )

    def report(self, choices: Sequence[Choice], scores: Sequence[Score] | None = None) -> GktReport:
        return GktReport(
            mode=self._mode,
            policy=self._policy_file,
            segments=[[s for s in choice.segments if s.tokens or s.chars] for choice in choices],
            student=self.student,
            teacher=self.teacher,
            template=self._template,
            fallback=self.fallback,
            cost_usd=self._cost_usd,
            scores=None if scores is None else [_reported(score) for score in scores],
            request_id=self._request_id,
        )

    def summary(self) -> str:
        """Return figures for the log. They contain no text of users or models."""
        return (
            f"mode={self._mode} teacher_tokens={self.teacher_tokens} "
            f"student_tokens={self.student.completion_tokens} fallback={self.fallback}"
        )

    def _count_prompt(self, usage: Usage) -> None:
        """Add the prompt of the current call, as counted so far."""
        assert self.teacher is not None  # noqa: S101 - a stream has its start first
        self.teacher.prompt_tokens = self._before.prompt_tokens + usage.prompt_tokens
        self.teacher.cached_tokens = self._before.cached_tokens + usage.cached_tokens

    def _wrote(self, side: Side, tokens: int) -> None:
        side.completion_tokens += tokens
        if side.first_token_ms is None:
            side.first_token_ms = self._elapsed_ms()

    def _elapsed_ms(self) -> float:
        return round(self.elapsed_s() * 1000, 1)


def _reported(score: Score) -> GuidanceScore:
    token = score.token.decode(errors="replace")
    return GuidanceScore(token=token, logprob=score.logprob, rank=score.rank, entropy=score.entropy)
