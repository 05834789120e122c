"""The use case: answer a request with student and teacher, and count what it took."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from edge_student.answering.choice import Part
from edge_student.answering.request import Ask
from edge_student.answering.run import Run
from edge_student.answering.tracing import Answered, request_span
from edge_student.cloud.client import Cloud
from edge_student.metrics import EdgeMetrics
from edge_student.student import Student
from shared.errors import GktError
from shared.observability.telemetry import OFF, Telemetry
from shared.prompting.templates import Template

logger = logging.getLogger("gkt.answering")


class Answering:
    """Answers requests with a student and, where the plan says so, a teacher behind the cloud."""

    def __init__(
        self,
        student: Student,
        cloud: Cloud,
        metrics: EdgeMetrics,
        *,
        hint: Template | None = None,
        draft_ahead: bool = True,
        fallback_prefetch_after_s: float | None = None,
        telemetry: Telemetry = OFF,
    ) -> None:
        """`hint` puts a draft before the student's eyes; without it drafts are not asked for.

        Where nothing has come of the teacher after `fallback_prefetch_after_s`, the student begins to write unseen.
        """
        self._student = student
        self._hint = hint
        self._cloud = cloud
        self._metrics = metrics
        self._draft_ahead = draft_ahead
        self._head_start_after_s = fallback_prefetch_after_s
        self._telemetry = telemetry

    async def answer(self, ask: Ask) -> AsyncGenerator[Part, None]:
        """Parts of the answer as they come; `Finished` is the last. Closing it stops both sides.

        Whatever the cloud does, the student ends the answer. Raises what `Student.open` and `StudentSequence.generate` raise.
        """
        outcome = "cancelled"
        with request_span(self._telemetry, ask) as span:
            ask = replace(ask, headers=span.headers)
            run = Run(
                ask,
                self._student,
                self._cloud,
                span,
                hint=self._hint,
                draft_ahead=self._draft_ahead,
                fallback_prefetch_after_s=self._head_start_after_s,
            )
            answered = Answered(span, ask.n)
            self._metrics.running.inc()
            try:
                async with aclosing(run.parts()) as parts:
                    async for part in parts:
                        answered.take(part)
                        yield part
                outcome = "ok"
            except GktError as error:
                outcome = error.code
                raise
            finally:
                self._metrics.running.dec()
                run.close()
                report, elapsed_s = run.report(), run.account.elapsed_s()
                answered.end(report, outcome)
                self._metrics.observe(ask.plan.mode, outcome, report, elapsed_s)
                logger.info("%s %s in %d ms: %s", ask.request_id, outcome, elapsed_s * 1000, run.account.summary())
