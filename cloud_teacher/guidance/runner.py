"""Runs jobs on the teachers of a pool: admission, failover, and the row in the ledger."""

from __future__ import annotations

import asyncio
import itertools
import logging

from cloud_teacher.accounting.usage import UsageRecorder, error_code
from cloud_teacher.admission.admission import Admission
from cloud_teacher.guidance.attempt import Attempt
from cloud_teacher.guidance.job import GuidanceJob, JobState
from cloud_teacher.guidance.prepare import prepare
from cloud_teacher.teachers.pool import FAILURES, PooledTeacher, TeacherPool
from shared.errors import GktError, Unsupported
from shared.protocol.guidance import Done, FinishReason

logger = logging.getLogger("gkt.cloud")


class TeacherRunner:
    """Runs each job on the first teacher that can do it."""

    def __init__(
        self, pool: TeacherPool, *, max_prompt_tokens: int, admission: Admission, recorder: UsageRecorder
    ) -> None:
        self._pool = pool
        self._max_prompt_tokens = max_prompt_tokens
        self._admission = admission
        self._recorder = recorder
        self._numbers = itertools.count(1)

    async def run(self, job: GuidanceJob) -> None:
        """Try the candidates in order until one has written something. Raises the error of the last one."""
        candidates = self._pool.candidates(job.request.model)
        failure: GktError | None = None
        for pooled in candidates:
            is_last = pooled is candidates[-1]
            try:
                attempt = await self._prepare(job, pooled)
            except (*FAILURES, Unsupported) as error:
                failed: GktError | None = error
            else:
                failed = await self._run(attempt, is_last=is_last)
            if failed is None:
                return
            if failure is None or not isinstance(failed, Unsupported):
                failure = failed
            if not is_last:
                self._recorder.metrics.failovers.labels(pooled.name, failed.code).inc()
        assert failure is not None  # noqa: S101 - a pool has at least one teacher
        raise failure

    async def _prepare(self, job: GuidanceJob, pooled: PooledTeacher) -> Attempt:
        engine_id = f"{job.record.request_id}.{next(self._numbers)}"
        return await prepare(
            job, pooled, self._recorder, engine_id=engine_id, max_prompt_tokens=self._max_prompt_tokens
        )

    async def _run(self, attempt: Attempt, *, is_last: bool) -> GktError | None:
        """Run an attempt in a slot of the engine, commit its usage, and emit `Done`.

        Returns the error if the next teacher may try: then this one has written nothing, and is not paid.
        """
        job, record = attempt.job, attempt.job.record
        record.set_teacher(attempt.teacher.model, attempt.pooled.prices, attempt.max_usage)
        max_nano_usd = self._recorder.max_nano_usd(record)
        async with self._admission.slot(job.caller, record, priority=job.hints.priority, max_nano_usd=max_nano_usd):
            if is_last:
                attempt.emit_start()  # no other teacher can take over, so the client may learn its name
            outcome: FinishReason | Exception
            try:
                record.outcome = outcome = await attempt.write()
                attempt.pooled.mark_healthy()
            except asyncio.CancelledError:
                self._recorder.commit(record)
                raise
            except Exception as error:  # noqa: BLE001 - raised below, once the usage is committed
                if isinstance(error, GktError) and self._record_failure(attempt, error):
                    return error
                outcome = error
                record.outcome = error_code(error)
            committed = self._recorder.commit(record)
        try:
            await committed  # commit to the ledger before sending `done`; the slot is free already
        except GktError as error:
            outcome = outcome if isinstance(outcome, Exception) else error
        if isinstance(outcome, Exception):
            raise outcome
        attempt.emit_start()  # an answer may end before its first word
        cost_usd = self._recorder.cost_usd(record)
        job.emit(Done(finish_reason=outcome, usage=record.usage, timing=record.timing(), cost_usd=cost_usd))
        return None

    def _record_failure(self, attempt: Attempt, error: GktError) -> bool:
        """Record the failure of a teacher. Returns True if the next one may take the job: nothing was emitted."""
        job, record = attempt.job, attempt.job.record
        if record.estimated and not job.has_output:
            record.reset_usage()  # no server has sent a bill
        attempt.pooled.mark_failed(error)
        if job.state is not JobState.PENDING or not isinstance(error, FAILURES):
            return False
        logger.warning("%s: %s failed: %s", record.request_id, attempt.pooled.name, error.message)
        record.reset_usage()
        return True
