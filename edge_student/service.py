"""What the edge's endpoints work with: the student once it is loaded, the use case, the settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge_student.answering.service import Answering
from edge_student.cloud.client import Cloud
from edge_student.metrics import EdgeMetrics
from edge_student.policy import with_policy_file
from edge_student.settings import EdgeSettings
from edge_student.student import Student
from shared.errors import ConfigurationError, NotReady, UnknownTemplate
from shared.observability.telemetry import OFF, Telemetry
from shared.prompting.templates import Template, Templates
from shared.protocol.guidance import Health
from shared.server.bearer_keys import Keys

logger = logging.getLogger("gkt.edge")


class Edge:
    """One edge: loads its student beside the event loop, and serves once that is there.

    Raises ConfigurationError where its policy file cannot be read, or its template of hints.
    """

    def __init__(self, settings: EdgeSettings, cloud: Cloud, *, started: int, telemetry: Telemetry = OFF) -> None:
        self.settings, self.policy = with_policy_file(settings)
        self.started = started
        self._hint = _hint(self.settings.expand_template)
        self.keys = Keys(settings.api_keys)
        self.metrics = EdgeMetrics()
        self.student: Student | None = None
        self._cloud = cloud
        self._telemetry = telemetry
        self._load_failure: str | None = None

    async def load(self, load: Callable[[], Student]) -> None:
        """Loads the student off the event loop. A failure is kept for `health` and raised again."""
        try:
            self.student = await asyncio.to_thread(load)
        except Exception as error:
            self._load_failure = str(error)
            raise
        logger.info("the student %s is ready", self.student.model)
        if self.settings.policy_file:
            logger.info("policy file %s; it decides the mode: %s", self.settings.policy_file, self.policy is not None)

    @property
    def answering(self) -> Answering:
        return Answering(
            self.ready_student(),
            self._cloud,
            self.metrics,
            hint=self._hint,
            draft_ahead=self.settings.draft_ahead,
            fallback_prefetch_after_s=self.settings.fallback_prefetch_after_s,
            telemetry=self._telemetry,
        )

    def ready_student(self) -> Student:
        """The student. Raises NotReady while it loads."""
        if self.student is None:
            raise NotReady(self._load_failure or f"{self.settings.model} is being loaded", retry_after_s=2)
        return self.student

    def health(self) -> Health:
        failure = self._load_failure or (self.student.failure() if self.student else None)
        if failure:
            return Health(status="failed", model=self.settings.model, detail=failure)
        if self.student is None:
            return Health(status="loading", model=self.settings.model, detail="the student is being loaded")
        return Health(status="ok", model=self.student.model)

    async def close(self) -> None:
        await self._cloud.close()
        if self.student:
            await self.student.close()
        await asyncio.to_thread(self._telemetry.close)


def _hint(name: str) -> Template:
    try:
        template = Templates.load().get(name)
    except UnknownTemplate as error:
        raise ConfigurationError(f"expand_template: {error.message}") from None
    if not template.takes_answer:
        raise ConfigurationError(f"expand_template: {name} has no place for a draft")
    return template
