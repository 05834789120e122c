"""States of a guidance job, and its readers."""

from __future__ import annotations

import asyncio

import pytest

from cloud_teacher.accounting.usage import UsageRecord
from cloud_teacher.auth.caller import Caller
from cloud_teacher.guidance.job import GuidanceJob, JobState, Output
from cloud_teacher.teachers.base import SchedulingHints
from shared.errors import EngineFailed
from shared.prompting.templates import Templates
from shared.protocol.guidance import Done, FinishReason, Guidance, GuidanceRequest, Message, Start, Timing, Usage

START = Start(request_id="r", model="m", template="answer@1#0", tokenizer="t")
WORD = Guidance(text="a", token_ids=[1])
DONE = Done(
    finish_reason=FinishReason.STOP,
    usage=Usage(prompt_tokens=1, completion_tokens=1),
    timing=Timing(total_ms=1.0),
)


class ScriptedRunner:
    """Emits the events that it is sent, until it is sent an error."""

    def __init__(self) -> None:
        self.script: asyncio.Queue[Output | Exception] = asyncio.Queue()
        self.cancelled = False

    async def run(self, job: GuidanceJob) -> None:
        try:
            while job.running:
                event = await self.script.get()
                if isinstance(event, Exception):
                    raise event
                job.emit(event)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


def new_job() -> GuidanceJob:
    request = GuidanceRequest(messages=[Message(role="user", content="?")], max_guidance_tokens=5)
    record = UsageRecord("r", "one", "guidance", "answer", "m")
    return GuidanceJob(request, Templates.load().get("answer"), Caller("one"), SchedulingHints(), record)


async def test_each_reader_reads_all_events_from_the_beginning() -> None:
    job, runner = new_job(), ScriptedRunner()
    job.start(runner)
    states = [job.state]
    with job.reader(), job.reader():
        first = job.read()
        runner.script.put_nowait(START)
        assert await anext(first) == START
        states.append(job.state)
        assert not job.has_output
        runner.script.put_nowait(WORD)
        runner.script.put_nowait(DONE)
        assert [event async for event in first] == [WORD, DONE]
        states.append(job.state)
        assert job.has_output
        assert [event async for event in job.read()] == [START, WORD, DONE]
    states.append(job.state)
    assert states == [JobState.PENDING, JobState.STREAMING, JobState.DONE, JobState.DONE], (
        "leaving cancels no job that is done"
    )


async def test_an_error_reaches_every_reader_behind_the_events() -> None:
    job, runner = new_job(), ScriptedRunner()
    task = job.start(runner)
    with job.reader():
        runner.script.put_nowait(START)
        runner.script.put_nowait(EngineFailed("gone"))
        for _ in range(2):
            read = job.read()
            assert await anext(read) == START
            with pytest.raises(EngineFailed, match="gone"):
                await anext(read)
        assert job.state is JobState.FAILED
    await task


async def test_the_last_reader_that_leaves_cancels_the_job() -> None:
    job, runner = new_job(), ScriptedRunner()
    task = job.start(runner)
    with job.reader():
        with job.reader():
            runner.script.put_nowait(START)
            assert await anext(job.read()) == START
        assert job.running
    assert job.state is JobState.CANCELLED
    with pytest.raises(asyncio.CancelledError):
        await task
    assert runner.cancelled
