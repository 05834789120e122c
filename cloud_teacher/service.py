"""One cloud: its teachers, keys, ledger and metrics, and the guidance service once a teacher is loaded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from cloud_teacher.accounting.usage import UsageRecorder
from cloud_teacher.admission.admission import Admission
from cloud_teacher.auth.keyring import Keyring
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.guidance.job import Runner
from cloud_teacher.guidance.response_cache import ResponseCache, ReusingRunner
from cloud_teacher.guidance.runner import TeacherRunner
from cloud_teacher.guidance.service import GuidanceService, Limits
from cloud_teacher.metrics import CloudMetrics
from cloud_teacher.registry.service import Registry
from cloud_teacher.store.storage import Storage
from cloud_teacher.teachers.base import Teacher
from cloud_teacher.teachers.loader import Loader
from cloud_teacher.teachers.pool import PooledTeacher, TeacherPool
from shared.errors import EngineFailed, GktError, NotReady
from shared.observability.telemetry import OFF, Telemetry
from shared.prompting.templates import Templates
from shared.protocol.guidance import Health

logger = logging.getLogger("gkt.cloud")

HEALTH_INTERVAL_S = 1.0


class CloudService:
    """Loads the teachers beside the event loop, serves once one is loaded, and watches their health.

    A teacher that fails, during loading or later, is not restarted here. Once all have failed, `run` calls `on_failure` and
    returns; the process then exits with a status other than 0, so that its supervisor starts a new one.
    """

    def __init__(self, settings: CloudSettings, pool: TeacherPool, telemetry: Telemetry = OFF) -> None:
        self.store = Storage(settings.store_url.get_secret_value()) if settings.store_url else None
        self.keys = self.store.keyring(settings.keys) if self.store else Keyring(settings.keys)
        self.protected_labels = frozenset(settings.protected_labels)
        self.registry = Registry(Templates.load(), self.store.registry if self.store else None)
        self._pool = pool
        self._telemetry = telemetry
        ledger = self.store.ledger if self.store else None
        self._admission = Admission(
            settings.max_running,
            settings.max_running_per_key,
            max_waiting=settings.max_queue,
            deadline_s=settings.queue_deadline_s,
            ledger=ledger,
        )
        self._metrics = CloudMetrics(lambda: self._admission.running, lambda: self._admission.waiting)
        recorder = UsageRecorder(self._metrics, ledger, reused_response_price=settings.reused_response_price)
        self._guidance = GuidanceService(
            pool,
            self._build_runner(settings, recorder),
            templates=lambda: self.registry.templates,
            limits=Limits(settings.max_guidance_tokens, prefix_cache_per_key=not settings.coalesce_across_keys),
            admission=self._admission,
            metrics=self._metrics,
            telemetry=telemetry,
        )
        self.started = int(time.time())
        self._failure: str | None = None
        """Failure of the service itself, not of a teacher."""
        for pooled in pool:
            self._metrics.up.labels(pooled.name).set_function(pooled.is_up)

    def _build_runner(self, settings: CloudSettings, recorder: UsageRecorder) -> Runner:
        runner = TeacherRunner(
            self._pool, max_prompt_tokens=settings.max_prompt_tokens, admission=self._admission, recorder=recorder
        )
        if settings.coalesce == "off":
            return runner
        cached = settings.coalesce == "cache"
        return ReusingRunner(
            runner,
            admission=self._admission,
            recorder=recorder,
            across_keys=settings.coalesce_across_keys,
            cache=ResponseCache(settings.response_cache_tokens, settings.response_cache_ttl_s) if cached else None,
        )

    async def run(
        self,
        load: Callable[[PooledTeacher, Loader], Teacher],
        on_failure: Callable[[], None],
        on_ready: Callable[[], None],
    ) -> None:
        """Load the teachers and watch them until cancelled, then close them.

        Calls `on_ready` once one is loaded, and `on_failure` if all have failed.
        """
        refreshing = [asyncio.create_task(task) for task in (self.keys.refresh(), self.registry.refresh())]
        try:
            await self.keys.read()
            await self.registry.read()
            async with asyncio.TaskGroup() as group:
                for pooled in self._pool:
                    group.create_task(self._watch(pooled, load, on_ready))
            on_failure()
        except Exception as error:
            self._failure = _message(error)
            unexpected = None if isinstance(error, GktError) else error
            logger.error("the service failed: %s", self._failure, exc_info=unexpected)
            on_failure()
        finally:
            for task in refreshing:
                task.cancel()
            await self._guidance.close()
            for pooled in self._pool:
                if pooled.teacher:
                    await pooled.teacher.close()
            if self.store:
                await asyncio.to_thread(self.store.close)
            await asyncio.to_thread(self._telemetry.close)

    async def _watch(
        self, pooled: PooledTeacher, load: Callable[[PooledTeacher, Loader], Teacher], on_ready: Callable[[], None]
    ) -> None:
        """Load a teacher and check its health until it has failed for good."""
        try:
            teacher = await Loader().run(lambda loader: load(pooled, loader))
            first = all(other.teacher is None for other in self._pool)
            pooled.teacher = teacher
            logger.info("teacher %s is ready", pooled.name)
            if first:
                on_ready()
            while True:
                pooled.teacher.check_health()
                await asyncio.sleep(HEALTH_INTERVAL_S)
        except Exception as error:
            pooled.failure = _message(error)
            unexpected = None if isinstance(error, GktError) else error
            logger.error("teacher %s failed: %s", pooled.name, pooled.failure, exc_info=unexpected)

    @property
    def guidance(self) -> GuidanceService:
        """The guidance service. Raises NotReady while no teacher is loaded, EngineFailed if all have failed."""
        if self._failure:
            raise EngineFailed(self._failure)
        if all(pooled.failure for pooled in self._pool):
            raise EngineFailed(self._pool.first.failure or "")
        if all(pooled.failure or pooled.teacher is None for pooled in self._pool):
            raise NotReady(f"teacher {self._pool.first.name!r} is still loading", retry_after_s=5)
        return self._guidance

    def health(self) -> Health:
        """Return `ok` if at least one teacher can serve, and in `detail` why others cannot."""
        if self._failure:
            return Health(status="failed", model=self._pool.first.name, detail=self._failure)
        states = [(pooled.name, *pooled.status()) for pooled in self._pool]
        several = len(states) > 1
        reasons = [f"{name}: {reason}" if several else reason for name, _, reason in states if reason]
        detail = "; ".join(reasons) or None
        for status in ("ok", "loading"):
            for name, found, _ in states:
                if found == status:
                    return Health(status=status, model=name, detail=detail)
        return Health(status="failed", model=self._pool.first.name, detail=detail)

    @property
    def names(self) -> list[str]:
        """Names of the teachers, in order."""
        return [pooled.name for pooled in self._pool]

    def registries(self) -> list[CollectorRegistry]:
        """Return the cloud's metrics, then those of the engines."""
        return [self._metrics.registry, *(pooled.teacher.registry for pooled in self._pool if pooled.teacher)]


def _message(error: Exception) -> str:
    return str(error) or type(error).__name__
