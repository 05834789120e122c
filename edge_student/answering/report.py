"""What a request took, on both sides: tokens, times, cost, and why it fell back if it did."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edge_student.answering.choice import Choice
from edge_student.cloud.client import Traffic
from edge_student.student import Score
from shared.protocol.gkt import FallbackReason, GktReport, GuidanceScore, Mode, Side
from shared.protocol.guidance import Done, Guidance, Start, Usage, Verdict


class Account:
    """Kept while a request is under way; times are milliseconds from its arrival."""

    def __init__(self, mode: Mode, request_id: str, student: str, *, policy: str | None = None) -> None:
        self._mode = mode
        self._policy = policy
        self._request_id = request_id
        self._started = time.monotonic()
        self._template: str | None = None
        self._cost_usd: float | None = None
        self._before = Side(model="")
        """The teacher's side before the call under way."""
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
        """A call to the teacher has begun. There may be several, one after the other."""
        self.teacher = self.teacher or Side(model=start.model)
        self.teacher.calls += 1
        self._before = self.teacher.model_copy()
        self._template = start.template

    def teacher_said(self, event: Verdict | Guidance) -> None:
        """Part of a call arrived."""
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
        """The stream has ended, in whichever way."""
        if self.teacher:
            self.teacher.total_ms = self._elapsed_ms()
            self.teacher.bytes_sent = self.traffic.sent
            self.teacher.bytes_received = self.traffic.received

    def student_wrote(self, tokens: int) -> None:
        self._wrote(self.student, tokens)

    def student_done(self, cached_tokens: int) -> None:
        """`cached_tokens` of the prompt were found computed."""
        self.student.total_ms = self._elapsed_ms()
        self.student.cached_tokens = cached_tokens

    def usage(self, prompt_tokens: int, answer_tokens: int | None = None) -> Usage:
        """What OpenAI's clients are told. `answer_tokens` where not all that was written is part of the answer."""
        written = self.student.completion_tokens + self.teacher_tokens
        return Usage(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.student.cached_tokens,
            completion_tokens=written if answer_tokens is None else answer_tokens,
        )

    def report(self, choices: Sequence[Choice], scores: Sequence[Score] | None) -> GktReport:
        return GktReport(
            mode=self._mode,
            policy=self._policy,
            segments=[[s for s in choice.segments if s.tokens or s.chars] for choice in choices],
            student=self.student,
            teacher=self.teacher,
            template=self._template,
            fallback=self.fallback,
            cost_usd=self._cost_usd,
            scores=None if scores is None else [_said(score) for score in scores],
            request_id=self._request_id,
        )

    def summary(self) -> str:
        """For the log: figures, and nothing of what was said."""
        return (
            f"mode={self._mode} teacher_tokens={self.teacher_tokens} "
            f"student_tokens={self.student.completion_tokens} fallback={self.fallback}"
        )

    def _count_prompt(self, usage: Usage) -> None:
        """Of the call so far."""
        assert self.teacher is not None  # noqa: S101 - a stream has its start first
        self.teacher.prompt_tokens = self._before.prompt_tokens + usage.prompt_tokens
        self.teacher.cached_tokens = self._before.cached_tokens + usage.cached_tokens

    def _wrote(self, side: Side, tokens: int) -> None:
        side.completion_tokens += tokens
        if side.first_token_ms is None:
            side.first_token_ms = self._elapsed_ms()

    def _elapsed_ms(self) -> float:
        return round(self.elapsed_s() * 1000, 1)


def _said(score: Score) -> GuidanceScore:
    token = score.token.decode(errors="replace")
    return GuidanceScore(token=token, logprob=score.logprob, rank=score.rank, entropy=score.entropy)
