"""The service object behind the edge's routes: student, answer service, policies, keys, metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge_student.answering.context import AnswerOptions
from edge_student.answering.service import AnswerService
from edge_student.answering.strategies import STRATEGIES
from edge_student.cloud.client import CloudClient
from edge_student.metrics import EdgeMetrics
from edge_student.policy import PolicyResolver
from edge_student.settings import EdgeSettings
from edge_student.student import Student
from shared.errors import ConfigurationError, NotReady, UnknownTemplate
from shared.observability.telemetry import OFF, Telemetry
from shared.prompting.templates import Template, Templates
from shared.protocol.guidance import Health
from shared.server.bearer_keys import Keys

logger = logging.getLogger("gkt.edge")


class EdgeService:
    """One edge: loads its student off the event loop, and answers once the student is loaded.

    Raises ConfigurationError if its policy file or its expand template is invalid.
    """

    def __init__(self, settings: EdgeSettings, cloud: CloudClient, *, started: int, telemetry: Telemetry = OFF) -> None:
        self.settings = settings
        self.policies = PolicyResolver.from_settings(settings, STRATEGIES)
        self.started = started
        self._options = AnswerOptions(
            expand_template=_expand_template(settings.expand_template),
            draft_ahead=settings.draft_ahead,
            fallback_prefetch_after_s=settings.fallback_prefetch_after_s,
            prefill_after_teacher=settings.prefill_after_teacher,
        )
        self.keys = Keys(settings.api_keys)
        self.metrics = EdgeMetrics()
        self.student: Student | None = None
        self._cloud = cloud
        self._telemetry = telemetry
        self._load_failure: str | None = None

    async def load(self, load: Callable[[], Student]) -> None:
        """Load the student off the event loop. `health` reports a failure, which is raised again."""
        try:
            self.student = await asyncio.to_thread(load)
        except Exception as error:
            self._load_failure = str(error)
            raise
        logger.info("the student %s is ready", self.student.model)
        if self.settings.policy_file:
            logger.info(
                "policy file %s; it decides the mode: %s", self.settings.policy_file, self.policies.file_decides_mode
            )

    @property
    def answering(self) -> AnswerService:
        return AnswerService(
            self.ready_student(),
            self._cloud,
            self.metrics,
            options=self._options,
            telemetry=self._telemetry,
        )

    def ready_student(self) -> Student:
        """Return the student. Raises NotReady while it loads."""
        if self.student is None:
            raise NotReady(self._load_failure or f"{self.settings.model} is loading", retry_after_s=2)
        return self.student

    def health(self) -> Health:
        failure = self._load_failure or (self.student.failure() if self.student else None)
        if failure:
            return Health(status="failed", model=self.settings.model, detail=failure)
        if self.student is None:
            return Health(status="loading", model=self.settings.model, detail="the student is loading")
        return Health(status="ok", model=self.student.model)

    async def close(self) -> None:
        await self._cloud.close()
        if self.student:
            await self.student.close()
        await asyncio.to_thread(self._telemetry.close)


def _expand_template(name: str) -> Template:
    try:
        template = Templates.load().get(name)
    except UnknownTemplate as error:
        raise ConfigurationError(f"expand_template: {error.message}") from None
    if not template.takes_answer:
        raise ConfigurationError(f"expand_template: the template {name!r} does not use the variable `answer`")
    return template
