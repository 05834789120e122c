"""One guidance or review request on its way through the cloud, and the events written for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from cloud_teacher.accounting.usage import UsageRecord
from cloud_teacher.auth.caller import Caller
from cloud_teacher.teachers.base import SchedulingHints
from shared.prompting.templates import Template
from shared.protocol.guidance import Done, Guidance, GuidanceRequest, Start, Verdict

Output = Start | Verdict | Guidance | Done


class JobState(StrEnum):
    """A job goes down this list, and ends in one of the last three states."""

    PENDING = "pending"
    """It waits for a slot, or for a teacher that another may still replace."""
    STREAMING = "streaming"
    """`Start` is written: one teacher has taken it."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    """Its last reader has left, which stopped the work."""


@dataclass(eq=False, slots=True)
class GuidanceJob:
    """One request and its output. A runner writes the output; any number of readers read it, each from its beginning.

    Belongs to one event loop.
    """

    request: GuidanceRequest
    template: Template
    caller: Caller
    hints: SchedulingHints
    record: UsageRecord
    state: JobState = JobState.PENDING
    events: list[Output] = field(default_factory=list)
    error: Exception | None = None
    """Set in state FAILED."""
    _readers: int = 0
    _task: asyncio.Task[None] | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def start(self, runner: Runner) -> asyncio.Task[None]:
        """Run the job in a task of its own, at the engine's pace, however slowly its client reads."""
        self._task = asyncio.create_task(self._run(runner))
        return self._task

    async def _run(self, runner: Runner) -> None:
        try:
            await runner.run(self)
        except Exception as error:  # noqa: BLE001 - readers raise it
            self.state, self.error = JobState.FAILED, error
            self._wake()

    def emit(self, event: Output) -> None:
        """Append an event. `Start` comes first and `Done` last."""
        self.events.append(event)
        if isinstance(event, Start):
            self.state = JobState.STREAMING
        elif isinstance(event, Done):
            self.state = JobState.DONE
        self._wake()

    @property
    def running(self) -> bool:
        return self.state in {JobState.PENDING, JobState.STREAMING}

    @property
    def has_output(self) -> bool:
        """True once there is an event behind `Start`."""
        return len(self.events) > 1

    @contextmanager
    def reader(self) -> Generator[None]:
        """Count a reader. The work is cancelled when the last reader leaves."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1
            if not self._readers and self.running and self._task:
                self.state = JobState.CANCELLED
                self._task.cancel()

    async def read(self) -> AsyncGenerator[Output, None]:
        """Yield all events, up to `Done`. Raises the error of a job that failed."""
        position = 0
        while True:
            while position < len(self.events):
                yield self.events[position]
                position += 1
            if self.error:
                raise self.error
            if self.state is JobState.DONE:
                return
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Runner(Protocol):
    """Writes the output of jobs."""

    async def run(self, job: GuidanceJob) -> None:
        """Emit a job's events: `Start`, the output, `Done`. Commits the job's record before `Done`.

        Raises what is wrong with the request, and what went wrong. Cancelling it stops the work.
        """
