"""A scripted teacher behind the Teacher protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from cloud_teacher.accounting.usage import UsageRecorder
from cloud_teacher.admission.admission import Admission
from cloud_teacher.guidance.runner import TeacherRunner
from cloud_teacher.guidance.service import GuidanceService, Limits
from cloud_teacher.metrics import CloudMetrics
from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
    GenerationParams,
    OutputChunk,
    Prompt,
    Reviewer,
    SchedulingHints,
    Scores,
)
from cloud_teacher.teachers.pool import TeacherPool
from shared.errors import EngineFailed, InvalidRequest
from shared.prompting.templates import Templates
from shared.protocol.guidance import Message


class ScriptedTeacher:
    """Writes the given words, one in each piece. A token is a code point of the prompt, or the position of a word."""

    model = "scripted-teacher"
    fingerprint = "f1a9"
    end_id = 0

    def __init__(
        self, *words: str, max_model_len: int = 200, dies_after: int | None = None, error: Exception | None = None
    ) -> None:
        self.words = words
        self.max_model_len = max_model_len
        self.dies_after = dies_after
        self.error = error or EngineFailed("the engine's process has died")
        self.dead = False
        self.registry = CollectorRegistry()
        self.tokens = Counter("fake_generation_tokens", "words spoken", registry=self.registry)
        self.prompts: list[str] = []
        self.doubted = ""
        """Characters of a draft that the teacher scores as improbable; chr(0) is the end of the answer."""
        self.choices = ""
        """The teacher's top choices at the positions of a draft's characters; `?` is a position without one."""
        self.scored: list[str] = []
        self.request_ids: list[str] = []
        self.params: list[GenerationParams] = []
        self.hints: list[SchedulingHints] = []
        self.stopped: asyncio.Queue[str] = asyncio.Queue()
        """Ids of requests whose generator was closed, for any reason."""
        self.closed = False
        self.gate = asyncio.Event()
        """While this event is clear, the teacher waits before its next word."""
        self.gate.set()

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        ids = [ord(c) for c in "".join(f"{m.role}:{m.content}\n" for m in messages)]
        return Prompt(messages, answer, conversation=ids, answer=self.encode_answer(answer))

    def reviewer(self) -> Reviewer:
        return self

    def encode_answer(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    async def score(
        self, request_id: str, ids: list[int], start: int, hints: SchedulingHints = DEFAULT_HINTS
    ) -> Scores:
        self.request_ids.append(request_id)
        self.hints.append(hints)
        text = self.decode(ids[start:])
        self.scored.append(text)
        doubted = [c in self.doubted for c in text]
        choices = [None if c == "?" else ord(c) for c in self.choices.ljust(len(text), "?")] if self.choices else []
        ranks = [9 if d else 1 for d in doubted]
        return Scores([-5.0 if d else -0.1 for d in doubted], ranks, choices, cached_tokens=3)

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        if "const" not in json_schema:
            raise InvalidRequest("json_schema: not supported", param="json_schema")

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        self.request_ids.append(request_id)
        self.prompts.append("".join(map(chr, prompt.ids)))
        self.params.append(params)
        self.hints.append(hints)
        try:
            count = min(len(self.words), params.max_tokens)
            for place, word in enumerate(self.words[:count]):
                if place:
                    await self.gate.wait()
                if place == self.dies_after:
                    raise self.error
                self.tokens.inc()
                last = place == count - 1
                end = "stop" if last and params.max_tokens > count else "limit" if last else None
                if any(stop in word for stop in params.stop):
                    end, last = "string", True
                yield OutputChunk(
                    text=word,
                    token_ids=[place],
                    logprobs=[-0.5] if params.logprobs else None,
                    end=end,  # type: ignore[arg-type]
                    cached_tokens=4,
                    queue_s=0.002,
                )
                if end == "string":
                    return
        finally:
            self.stopped.put_nowait(request_id)

    def check_health(self) -> None:
        if self.dead:
            raise self.error

    async def close(self) -> None:
        self.closed = True


def guidance_service(teacher: ScriptedTeacher) -> GuidanceService:
    """Return a guidance service over one teacher that runs one request at a time, without keys, ledger or reuse."""
    pool, metrics, admission = TeacherPool.single(teacher), CloudMetrics(), Admission(max_running=1)
    runner = TeacherRunner(pool, max_prompt_tokens=200, admission=admission, recorder=UsageRecorder(metrics))
    limits = Limits(max_guidance_tokens=100)
    return GuidanceService(pool, runner, templates=Templates.load, limits=limits, admission=admission, metrics=metrics)
