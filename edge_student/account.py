"""What a request took, on both sides: tokens, times, cost, and why it fell back if it did."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edge_student.choice import Choice
from edge_student.student import Score, StudentSequence
from shared.guided import FallbackReason, GktReport, GuidanceScore, Mode, Side
from shared.wire import Done, Start, Usage


class Account:
    """Kept while a request is under way; times are milliseconds from its arrival."""

    def __init__(self, mode: Mode, request_id: str, student: str) -> None:
        self._mode = mode
        self._request_id = request_id
        self._started = time.monotonic()
        self._template: str | None = None
        self._cost_usd: float | None = None
        self.student = Side(model=student)
        self.teacher: Side | None = None
        self.fallback: FallbackReason | None = None

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    @property
    def teacher_tokens(self) -> int:
        return self.teacher.completion_tokens if self.teacher else 0

    def teacher_began(self, start: Start) -> None:
        self.teacher = Side(model=start.model)
        self._template = start.template

    def teacher_wrote(self, tokens: int) -> None:
        assert self.teacher is not None  # noqa: S101 - a stream has its start first
        self._wrote(self.teacher, tokens)

    def teacher_done(self, done: Done) -> None:
        self._cost_usd = done.cost_usd
        if self.teacher:
            self.teacher = self.teacher.model_copy(update=done.usage.model_dump())

    def teacher_left(self) -> None:
        """The stream has ended, in whichever way."""
        if self.teacher:
            self.teacher.total_ms = self._elapsed_ms()

    def student_wrote(self, tokens: int) -> None:
        self._wrote(self.student, tokens)

    def student_done(self, sequences: Sequence[StudentSequence]) -> None:
        if sequences:
            self.student.total_ms = self._elapsed_ms()
            # The first choice has computed what the others share with it.
            self.student.cached_tokens = sequences[0].cached_tokens

    def usage(self, prompt_tokens: int) -> Usage:
        return Usage(
            prompt_tokens=prompt_tokens,
            cached_tokens=self.student.cached_tokens,
            completion_tokens=self.student.completion_tokens + self.teacher_tokens,
        )

    def report(self, choices: Sequence[Choice], scores: Sequence[Score] | None) -> GktReport:
        return GktReport(
            mode=self._mode,
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

    def _wrote(self, side: Side, tokens: int) -> None:
        side.completion_tokens += tokens
        if side.first_token_ms is None:
            side.first_token_ms = self._elapsed_ms()

    def _elapsed_ms(self) -> float:
        return round(self.elapsed_s() * 1000, 1)


def _said(score: Score) -> GuidanceScore:
    token = score.token.decode(errors="replace")
    return GuidanceScore(token=token, logprob=score.logprob, rank=score.rank, entropy=score.entropy)
