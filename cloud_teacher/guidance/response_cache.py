"""Reuse of responses: identical greedy requests read one generation, while it is written and for a while after.

Requests are identical if key, template, conversation and options are. With `across_keys` the key makes no difference; clients
can then learn by timing what others have asked.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Literal, NamedTuple

from cloud_teacher.accounting.usage import ReuseKind, UsageRecord, UsageRecorder, error_code
from cloud_teacher.admission.admission import Admission
from cloud_teacher.guidance.job import GuidanceJob, JobState, Output, Runner
from shared.protocol.guidance import Done, Guidance

Coalesce = Literal["off", "running", "cache"]

ENTRY_TOKENS = 50
"""Size of a cached response beside its tokens, in tokens."""


class CachedResponse(NamedTuple):
    events: Sequence[Output]
    record: UsageRecord
    """Record of the request that the response was computed for."""
    expires_s: float

    @property
    def tokens(self) -> int:
        return ENTRY_TOKENS + self.record.completion_tokens


class ResponseCache:
    """A bounded cache of complete responses. The least recently used are dropped first."""

    def __init__(self, max_tokens: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_tokens = max_tokens
        self._ttl_s = ttl_s
        self._clock = clock
        self._responses: OrderedDict[bytes, CachedResponse] = OrderedDict()
        self._tokens = 0

    def lookup(self, key: bytes) -> CachedResponse | None:
        response = self._responses.get(key)
        if response is None:
            return None
        if self._clock() >= response.expires_s:
            self._drop(key)
            return None
        self._responses.move_to_end(key)
        return response

    def store(self, key: bytes, events: Sequence[Output], record: UsageRecord) -> None:
        response = CachedResponse(tuple(events), record, self._clock() + self._ttl_s)
        if response.tokens > self._max_tokens:
            return
        if key in self._responses:
            self._drop(key)
        self._responses[key] = response
        self._tokens += response.tokens
        while self._tokens > self._max_tokens:
            self._drop(next(iter(self._responses)))

    def _drop(self, key: bytes) -> None:
        self._tokens -= self._responses.pop(key).tokens


class ReusingRunner:
    """Decorates a runner: the first of identical jobs runs there, the others copy its output.

    A job that copies needs no slot. It has a row of its own in the ledger, and a reservation if reused responses cost something.
    """

    def __init__(
        self,
        inner: Runner,
        *,
        admission: Admission,
        recorder: UsageRecorder,
        across_keys: bool = False,
        cache: ResponseCache | None = None,
    ) -> None:
        """Without a cache only running jobs are reused."""
        self._inner = inner
        self._admission = admission
        self._recorder = recorder
        self._across_keys = across_keys
        self._cache = cache
        self._running: dict[bytes, GuidanceJob] = {}

    async def run(self, job: GuidanceJob) -> None:
        key = request_digest(job, across_keys=self._across_keys)
        if key is None:
            await self._inner.run(job)
        elif source := self._lookup(key, job):
            with source.reader():
                await self._copy(job, "coalesced", source.read(), source.record)
        elif cached := self._cache and self._cache.lookup(key):
            await self._copy(job, "cached", _replay(cached.events), cached.record)
        else:
            self._running[key] = job
            try:
                await self._inner.run(job)
            finally:
                if self._running.get(key) is job:
                    del self._running[key]
            if self._cache:
                self._cache.store(key, job.events, job.record)

    def _lookup(self, key: bytes, job: GuidanceJob) -> GuidanceJob | None:
        """Return a running job to copy. Only jobs of the same caller may wait for a slot together."""
        source = self._running.get(key)
        if source is None or not source.running:
            return None
        same_caller = source.caller.name == job.caller.name
        return source if same_caller or source.state is JobState.STREAMING else None

    async def _copy(
        self, job: GuidanceJob, kind: ReuseKind, events: AsyncGenerator[Output, None], source: UsageRecord
    ) -> None:
        """Emit the events of another request as this job's own, and commit its record."""
        record = job.record
        async with aclosing(events):
            start = await anext(events)
            record.reuse(kind, source)
            max_nano_usd = self._recorder.max_nano_usd(record)
            async with self._admission.reservation(job.caller, record, tokens=0, nano_usd=max_nano_usd):
                try:
                    job.emit(start.model_copy(update={"request_id": record.request_id}))
                    async for event in events:
                        if isinstance(event, Guidance):
                            record.count_reused(event.count)
                        if not isinstance(event, Done):
                            job.emit(event)
                    assert isinstance(event, Done)  # noqa: S101 - every output ends so
                    record.outcome = event.finish_reason
                except Exception as error:
                    record.outcome = error_code(error)
                    raise
                finally:
                    committed = self._recorder.commit(record)
        await committed
        changes = {"timing": record.timing(), "cost_usd": self._recorder.cost_usd(record), "reused": kind}
        job.emit(event.model_copy(update=changes))


async def _replay(events: Sequence[Output]) -> AsyncGenerator[Output, None]:
    for event in events:
        yield event


def request_digest(job: GuidanceJob, *, across_keys: bool) -> bytes | None:
    """Return a digest that identical requests share; None if sampling makes the answer random."""
    request = job.request
    if request.temperature > 0:
        return None
    key = "" if across_keys else job.caller.name
    options = request.model_dump_json(exclude={"template", "priority"})
    parts = "\0".join([key, job.template.identity, type(request).__name__, options])
    return hashlib.sha256(parts.encode()).digest()
