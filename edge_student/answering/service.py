"""Answers requests with student and teacher, and records what that took."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from edge_student.answering.choice import Part
from edge_student.answering.context import AnswerContext, AnswerOptions
from edge_student.answering.request import AnswerRequest
from edge_student.answering.strategies import strategy_for
from edge_student.answering.tracing import AnswerSpan, request_span
from edge_student.cloud.client import CloudClient
from edge_student.metrics import EdgeMetrics
from edge_student.student import Student
from shared.errors import GktError
from shared.observability.telemetry import OFF, Telemetry

logger = logging.getLogger("gkt.answering")


class AnswerService:
    """Answers requests with a student and, if the policy allows it, a teacher in the cloud."""

    def __init__(
        self,
        student: Student,
        cloud: CloudClient,
        metrics: EdgeMetrics,
        *,
        options: AnswerOptions | None = None,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._student = student
        self._cloud = cloud
        self._metrics = metrics
        self._options = options or AnswerOptions()
        self._telemetry = telemetry

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[Part, None]:
        """Yield parts of the answer as they come, `Finished` last. Closing the generator stops both sides.

        Whatever the cloud does, the student ends the answer. Raises what `Student.open` and `StudentSequence.generate` raise.
        """
        outcome = "cancelled"
        with request_span(self._telemetry, request) as span:
            request = replace(request, headers=span.headers)
            context = AnswerContext(request, self._student, self._cloud, self._options, span)
            answer_span = AnswerSpan(span, request.n)
            self._metrics.running.inc()
            try:
                async with aclosing(strategy_for(request)(context)) as parts:
                    async for part in parts:
                        answer_span.add(part)
                        yield part
                outcome = "ok"
            except GktError as error:
                outcome = error.code
                raise
            finally:
                self._metrics.running.dec()
                recorder = context.recorder
                report, elapsed_s = recorder.report(context.choices), recorder.elapsed_s()
                answer_span.end(report, outcome)
                self._metrics.observe(request.policy.mode, outcome, report, elapsed_s)
                logger.info("%s %s in %d ms: %s", request.request_id, outcome, elapsed_s * 1000, recorder.summary())
