"""What the cloud's endpoints work with: the use case once a teacher is loaded, the keys, the metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from cloud_teacher.accounting.usage import Books
from cloud_teacher.admission.admission import Admission
from cloud_teacher.auth.keyring import Keyring
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.guidance.response_cache import Sharing
from cloud_teacher.guidance.service import GuidanceService, Limits
from cloud_teacher.metrics import CloudMetrics
from cloud_teacher.store.storage import Storage
from cloud_teacher.teachers.base import Teacher
from cloud_teacher.teachers.loader import Loading
from cloud_teacher.teachers.pool import Member, Teachers
from shared.errors import EngineFailed, GktError, NotReady
from shared.observability.telemetry import OFF, Telemetry
from shared.prompting.templates import Templates
from shared.protocol.guidance import Health

logger = logging.getLogger("gkt.cloud")

HEALTH_EVERY_S = 1.0


class Cloud:
    """One cloud service: loads its teachers beside the event loop, serves once one is there, and watches them.

    A teacher that failed, while it was loaded or later, is never mended here. Once all have, `run` says so and ends. Whoever
    runs the process has it end too, with a status that is not 0, so that its supervisor starts a new one.
    """

    def __init__(self, settings: CloudSettings, teachers: Teachers, telemetry: Telemetry = OFF) -> None:
        self.store = Storage(settings.store_url.get_secret_value()) if settings.store_url else None
        self.keys = self.store.keyring(settings.keys) if self.store else Keyring(settings.keys)
        self._teachers = teachers
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
        books = Books(self._metrics, ledger, reused_response_price=settings.reused_response_price)
        sharing = Sharing(
            settings.coalesce,
            across_keys=settings.coalesce_across_keys,
            cache_tokens=settings.response_cache_tokens,
            lasts_s=settings.response_cache_ttl_s,
        )
        self._guidance = GuidanceService(
            teachers,
            templates=Templates.load(),
            limits=Limits(
                max_prompt_tokens=settings.max_prompt_tokens, max_guidance_tokens=settings.max_guidance_tokens
            ),
            admission=self._admission,
            books=books,
            sharing=sharing,
            telemetry=telemetry,
        )
        self.started = int(time.time())
        self._failure: str | None = None
        """Of the service itself."""
        for member in teachers:
            self._metrics.up.labels(member.name).set_function(member.is_up)

    async def run(
        self, load: Callable[[Member, Loading], Teacher], on_failure: Callable[[], None], on_ready: Callable[[], None]
    ) -> None:
        """Load the teachers and watch over them until cancelled, and close them.

        Calls `on_ready` once one is loaded, `on_failure` where all have failed.
        """
        refreshing = asyncio.create_task(self.keys.refresh())
        try:
            await self.keys.read()
            async with asyncio.TaskGroup() as group:
                for member in self._teachers:
                    group.create_task(self._tend(member, load, on_ready))
            on_failure()
        except Exception as error:
            self._failure = _said(error)
            unexpected = None if isinstance(error, GktError) else error
            logger.error("the service failed: %s", self._failure, exc_info=unexpected)
            on_failure()
        finally:
            refreshing.cancel()
            await self._guidance.close()
            for member in self._teachers:
                if member.teacher:
                    await member.teacher.close()
            if self.store:
                await asyncio.to_thread(self.store.close)
            await asyncio.to_thread(self._telemetry.close)

    async def _tend(
        self, member: Member, load: Callable[[Member, Loading], Teacher], on_ready: Callable[[], None]
    ) -> None:
        """Load a teacher and watch over it. Ends where it has failed for good."""
        try:
            teacher = await Loading().run(lambda loading: load(member, loading))
            first = all(other.teacher is None for other in self._teachers)
            member.teacher = teacher
            logger.info("the teacher %s is ready", member.name)
            if first:
                on_ready()
            while True:
                member.teacher.check_health()
                await asyncio.sleep(HEALTH_EVERY_S)
        except Exception as error:
            member.failure = _said(error)
            unexpected = None if isinstance(error, GktError) else error
            logger.error("the teacher %s failed: %s", member.name, member.failure, exc_info=unexpected)

    @property
    def guidance(self) -> GuidanceService:
        """The use case. Raises NotReady while no teacher is loaded, EngineFailed where all have failed."""
        if self._failure:
            raise EngineFailed(self._failure)
        if all(member.failure for member in self._teachers):
            raise EngineFailed(self._teachers.first.failure or "")
        if all(member.failure or member.teacher is None for member in self._teachers):
            raise NotReady(f"{self._teachers.first.name} is being loaded", retry_after_s=5)
        return self._guidance

    def health(self) -> Health:
        """Whether guidance can be had now, of any teacher, and why not of the others."""
        if self._failure:
            return Health(status="failed", model=self._teachers.first.name, detail=self._failure)
        states = [(member.name, *member.state()) for member in self._teachers]
        several = len(states) > 1
        away = [f"{name}: {why}" if several else why for name, _, why in states if why]
        detail = "; ".join(away) or None
        for status in ("ok", "loading"):
            for name, found, _ in states:
                if found == status:
                    return Health(status=status, model=name, detail=detail)
        return Health(status="failed", model=self._teachers.first.name, detail=detail)

    @property
    def names(self) -> list[str]:
        """Of the teachers, in order."""
        return [member.name for member in self._teachers]

    def registries(self) -> list[CollectorRegistry]:
        """Our metrics, then the engines'."""
        return [self._metrics.registry, *(member.teacher.registry for member in self._teachers if member.teacher)]


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
