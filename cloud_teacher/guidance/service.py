"""Answers guidance and review requests with events, and counts them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from cloud_teacher.accounting.usage import CLIENT_DISCONNECTED, UsageRecord, error_code
from cloud_teacher.admission.admission import Admission
from cloud_teacher.auth.caller import Caller
from cloud_teacher.guidance.job import GuidanceJob, Runner
from cloud_teacher.guidance.tracing import end_request_span, request_span
from cloud_teacher.metrics import CloudMetrics
from cloud_teacher.teachers.base import SchedulingHints
from cloud_teacher.teachers.pool import TeacherPool
from shared.errors import BudgetTooLarge, EngineFailed, GktError, InternalError, StoreFailed, UnknownTemplate
from shared.observability.telemetry import OFF, Span, Telemetry
from shared.prompting.templates import Templates
from shared.protocol.guidance import Done, Event, Failure, Guidance, GuidanceRequest, ReviewRequest, Start
from shared.server.bearer_keys import ANYONE

logger = logging.getLogger("gkt.cloud")

NO_TRACE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of each request, and the isolation of prefix caches."""

    max_guidance_tokens: int
    prefix_cache_per_key: bool = True
    """Keep the prefix caches of different keys apart."""


class GuidanceService:
    """Answers guidance and review requests."""

    def __init__(
        self,
        pool: TeacherPool,
        runner: Runner,
        *,
        templates: Callable[[], Templates],
        limits: Limits,
        admission: Admission,
        metrics: CloudMetrics,
        telemetry: Telemetry = OFF,
    ) -> None:
        self._pool = pool
        self._runner = runner
        self._templates = templates
        self._limits = limits
        self._admission = admission
        self._metrics = metrics
        self._telemetry = telemetry
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(
        self, request: GuidanceRequest, *, request_id: str, caller: Caller, trace: Mapping[str, str] = NO_TRACE
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of one request. `trace` has the caller's W3C headers.

        Errors before `Start` are raised, later ones become an event: exactly one of `Done` and `Failure` comes last. A client
        that leaves closes the generator, and with it the engine's work.

        Raises PromptTooLong, BudgetTooLarge, UnknownTemplate, UnknownModel, InvalidRequest, Overloaded, TooManyRequests,
        EngineFailed, NotReady, StoreFailed.
        """
        record = UsageRecord(
            request_id=request_id,
            key=caller.name,
            kind="review" if isinstance(request, ReviewRequest) else "guidance",
            template=request.template,
            model=request.model or self._pool.first.name,
        )
        span = request_span(self._telemetry, request, record, trace)
        job: GuidanceJob | None = None
        outcome: str = CLIENT_DISCONNECTED
        started = first_token = False
        try:
            job = self._new_job(request, caller, record, span)
            with self._admission.request(caller), self._running(job):
                async for event in job.read():
                    if isinstance(event, Start):
                        started = True
                        span.event("admitted")
                    elif isinstance(event, Guidance) and not first_token:
                        first_token = True
                        span.event("first_token")
                    elif isinstance(event, Done):
                        outcome = event.finish_reason
                    yield event
        except Exception as error:
            outcome = error_code(error)
            span.fail(outcome)
            if isinstance(error, EngineFailed | StoreFailed):
                # Log errors an operator must fix. These messages never contain user text.
                logger.warning("%s failed: %s", request_id, error.message)
            if not started:
                raise
            yield _failure(error, request_id)  # status 200 is sent already
        finally:
            self._count(record, outcome)
            end_request_span(span, job, outcome)

    async def close(self) -> None:
        """Stop the jobs that still run, and commit their usage."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _new_job(self, request: GuidanceRequest, caller: Caller, record: UsageRecord, span: Span) -> GuidanceJob:
        """Raises UnknownTemplate, BudgetTooLarge, UnknownModel."""
        template = self._templates().get(request.template)
        if template.takes_answer:
            raise UnknownTemplate(f"template {template.name!r} is for the student, not for guidance", param="template")
        limit = self._limits.max_guidance_tokens
        if request.max_guidance_tokens > limit:
            raise BudgetTooLarge(
                f"max_guidance_tokens is {request.max_guidance_tokens}; the limit is {limit}",
                param="max_guidance_tokens",
            )
        self._pool.candidates(request.model)
        record.template = template.identity
        hints = SchedulingHints(
            caller.allowance.priority + request.priority, self._cache_salt(caller, request.cache_salt), span.headers
        )
        return GuidanceJob(request, template, caller, hints, record)

    def _cache_salt(self, caller: Caller, requested: str | None) -> str | None:
        """Return the salt of the engine's prefix cache: the requested one, and in front of it the key's name."""
        if not self._limits.prefix_cache_per_key or caller.name == ANYONE:
            return requested
        return caller.name if requested is None else f"{caller.name}/{requested}"  # no key's name has a slash

    @contextmanager
    def _running(self, job: GuidanceJob) -> Generator[None]:
        """Start a job, and be its first reader."""
        task = job.start(self._runner)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with job.reader():
            yield

    def _count(self, record: UsageRecord, outcome: str) -> None:
        took_s = time.monotonic() - record.arrived_s
        self._metrics.requests.labels(outcome).inc()
        self._metrics.duration.observe(took_s)
        usage = record.response_usage
        logger.info(
            "%s by %s: %s, %d prompt tokens (%d cached), %d output tokens, %.0f ms",
            record.request_id,
            record.key,
            outcome,
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            took_s * 1000,
        )


def _failure(error: Exception, request_id: str) -> Failure:
    if not isinstance(error, GktError):
        logger.error("%s crashed", request_id, exc_info=error)
        error = InternalError("internal server error; see the server log for this request id")
    return Failure(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        retry_after_s=error.retry_after_s,
    )
