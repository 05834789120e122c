"""Builds the cloud's app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI

from cloud_teacher.api import guidance, models, registry, usage
from cloud_teacher.api.metrics_server import metrics_server
from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.service import CloudService
from cloud_teacher.teachers.base import Teacher
from cloud_teacher.teachers.factory import build_teachers, open_teacher
from cloud_teacher.teachers.loader import Loader
from cloud_teacher.teachers.pool import PooledTeacher
from cloud_teacher.teachers.replay import ReplayTeacher
from shared.observability.telemetry import OFF, Telemetry
from shared.server.app import create_service


def create_app(
    settings: CloudSettings,
    *,
    teacher: Teacher | None = None,
    telemetry: Telemetry = OFF,
    on_failure: Callable[[], None] = lambda: None,
    on_ready: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Return a cloud's app. It loads its teachers from the settings, unless one is given.

    `on_ready` is called once a teacher is loaded, `on_failure` once all have failed. The app closes `telemetry` when it ends.
    Raises ConfigurationError if the teachers file is invalid.
    """
    cloud = CloudService(settings, build_teachers(settings, teacher), telemetry)

    def load(pooled: PooledTeacher, loader: Loader) -> Teacher:
        loaded = teacher or open_teacher(pooled.entry, settings, loader, telemetry.endpoint)
        return ReplayTeacher(loaded, Path(settings.replay_file)) if settings.replay_file else loaded

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, CloudService]]:
        async with metrics_server(settings.host, settings.metrics_port, cloud.registries):
            running = asyncio.create_task(cloud.run(load, on_failure, on_ready))
            try:
                yield {"cloud": cloud}
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running

    app = create_service(
        "gkt cloud",
        lifespan=lifespan,
        readiness=cloud.health,
        registries=cloud.registries,
        max_body_bytes=settings.max_body_bytes,
    )
    app.include_router(guidance.router)
    app.include_router(usage.router)
    app.include_router(registry.router)
    app.include_router(models.router)
    app.state.health = cloud.health
    return app
