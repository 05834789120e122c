"""Builds the edge's FastAPI app."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from edge_student.api import chat, completions, models
from edge_student.api.dependencies import authorized
from edge_student.cloud.client import CloudClient, HttpCloudClient, NoCloudClient
from edge_student.service import EdgeService
from edge_student.settings import EdgeSettings
from edge_student.student import Student
from shared.observability.telemetry import OFF, Telemetry
from shared.server.app import create_service

logger = logging.getLogger("gkt.edge")


def create_app(
    settings: EdgeSettings,
    *,
    student: Student | None = None,
    cloud: CloudClient | None = None,
    telemetry: Telemetry = OFF,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """Return the app of an edge. It loads the student of the settings unless it gets one, and calls `on_failure` if that fails.

    Its shutdown closes `telemetry`.
    """
    edge = EdgeService(settings, cloud or _cloud(settings, telemetry), started=int(time.time()), telemetry=telemetry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, EdgeService]]:
        async def load() -> None:
            try:
                await edge.load(lambda: student or _llama(settings))
            except Exception:
                logger.exception("the student %s cannot be loaded", settings.model)
                on_failure()

        loading = asyncio.create_task(load())
        try:
            yield {"edge": edge}
        finally:
            # The thread that loads a model cannot be interrupted. The app waits for it, so that it does not outlive the app.
            await loading
            await edge.close()

    app = create_service(
        "gkt edge",
        lifespan=lifespan,
        readiness=edge.health,
        registries=lambda: [edge.metrics.registry, *([edge.student.registry] if edge.student else [])],
        max_body_bytes=settings.max_body_bytes,
    )
    for api in (chat, completions, models):
        app.include_router(api.router, dependencies=[Depends(authorized)])
    return app


def _cloud(settings: EdgeSettings, telemetry: Telemetry) -> CloudClient:
    if not settings.cloud_url:
        return NoCloudClient()
    return HttpCloudClient(settings.cloud_url, settings, telemetry=telemetry)


def _llama(settings: EdgeSettings) -> Student:
    from edge_student.llama.student import LlamaStudent
    from shared.model_hub.local_models import ensure_gguf

    return LlamaStudent(settings.model, ensure_gguf(settings.model), settings)
