"""What the cloud's endpoints work with: the use case once the teacher is loaded, the keys, the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from cloud_teacher.account import Books
from cloud_teacher.admission import Admission
from cloud_teacher.guidance import GuidanceService, Limits
from cloud_teacher.keyring import Keyring
from cloud_teacher.loading import Loading
from cloud_teacher.metrics import CloudMetrics
from cloud_teacher.settings import CloudSettings
from cloud_teacher.sharing import Sharing
from cloud_teacher.storage import Storage
from cloud_teacher.teacher import Teacher
from shared.errors import EngineFailed, GktError, NotReady
from shared.telemetry import OFF, Telemetry
from shared.templates import Templates
from shared.wire import Health

logger = logging.getLogger("gkt.cloud")

HEALTH_EVERY_S = 1.0


class Cloud:
    """One cloud service: loads its teacher beside the event loop, serves once that is there, and watches it.

    A teacher that failed, while it was loaded or later, is never mended here: `run` says so and ends. Whoever runs the
    process has it end too, with a status that is not 0, so that its supervisor starts a new one.
    """

    def __init__(self, settings: CloudSettings, telemetry: Telemetry = OFF) -> None:
        self.store = Storage(settings.store_url.get_secret_value()) if settings.store_url else None
        self.keys = self.store.keyring(settings.keys) if self.store else Keyring(settings.keys)
        self._settings = settings
        self._telemetry = telemetry
        self._templates = Templates.load()
        ledger = self.store.ledger if self.store else None
        self._admission = Admission(
            settings.max_running,
            settings.max_running_per_key,
            max_waiting=settings.max_queue,
            deadline_s=settings.queue_deadline_s,
            prices=settings.prices,
            ledger=ledger,
        )
        self._metrics = CloudMetrics(lambda: self._admission.running, lambda: self._admission.waiting)
        self._books = Books(self._metrics, settings.prices, ledger, shared_price=settings.share_price)
        self._sharing = Sharing(
            settings.share,
            across_keys=settings.share_across_keys,
            cache_tokens=settings.share_cache_tokens,
            lasts_s=settings.share_cache_s,
        )
        self._teacher: Teacher | None = None
        self._guidance: GuidanceService | None = None
        """None where there is none to be had; `_service` is the one to close."""
        self._service: GuidanceService | None = None
        self._failure: str | None = None

    async def run(
        self, load: Callable[[Loading], Teacher], on_failure: Callable[[], None], on_ready: Callable[[], None]
    ) -> None:
        """Load the teacher, watch over it until cancelled, and close it.

        Calls `on_ready` once it is loaded, `on_failure` where it fails.
        """
        refreshing = asyncio.create_task(self.keys.refresh())
        try:
            await self.keys.read()
            self._serve(await Loading().run(load))
            on_ready()
            await self._watch()
        except Exception as error:
            self._failure = str(error) or type(error).__name__
            self._guidance = None
            unexpected = None if isinstance(error, GktError) else error
            logger.error("the teacher %s failed: %s", self._settings.model, self._failure, exc_info=unexpected)
            on_failure()
        finally:
            refreshing.cancel()
            if self._service:
                await self._service.close()
            if self._teacher:
                await self._teacher.close()
            if self.store:
                await asyncio.to_thread(self.store.close)
            await asyncio.to_thread(self._telemetry.close)

    def _serve(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._guidance = self._service = GuidanceService(
            teacher,
            templates=self._templates,
            limits=Limits(
                max_prompt_tokens=self._settings.max_prompt_tokens,
                max_guidance_tokens=self._settings.max_guidance_tokens,
            ),
            admission=self._admission,
            books=self._books,
            sharing=self._sharing,
            telemetry=self._telemetry,
        )
        logger.info("the teacher %s is ready", teacher.model)

    async def _watch(self) -> None:
        assert self._teacher is not None  # noqa: S101
        while True:
            self._teacher.check_health()
            await asyncio.sleep(HEALTH_EVERY_S)

    @property
    def guidance(self) -> GuidanceService:
        """The use case. Raises NotReady while the teacher loads, EngineFailed where it failed."""
        if self._failure:
            raise EngineFailed(self._failure)
        if self._guidance is None:
            raise NotReady(f"{self._settings.model} is being loaded", retry_after_s=5)
        return self._guidance

    def health(self) -> Health:
        """Whether guidance can be had now, and why not."""
        failure = self._failure or self._engine_failure()
        if failure:
            return Health(status="failed", model=self._settings.model, detail=failure)
        if self._teacher is None:
            return Health(status="loading", model=self._settings.model, detail="the teacher is being loaded")
        return Health(status="ok", model=self._teacher.model)

    def _engine_failure(self) -> str | None:
        try:
            if self._teacher:
                self._teacher.check_health()
        except EngineFailed as error:
            return error.message
        return None

    def registries(self) -> list[CollectorRegistry]:
        """Our metrics, then the engine's."""
        return [self._metrics.registry, *([self._teacher.registry] if self._teacher else [])]
