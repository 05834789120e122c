"""A teacher decorator that records output and scores in a file and replays them, for evaluation.

Sweeps repeat requests. Guidance of 20 tokens is the beginning of guidance of 40 tokens, which is the beginning of the teacher's
whole answer; a policy with another threshold takes the same first steps. Replayed tokens, texts, probabilities and cached prompt
tokens equal the recorded ones. Times do not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
    GenerationParams,
    OutputChunk,
    Prompt,
    Reviewer,
    SchedulingHints,
    Scores,
    Teacher,
)
from shared.errors import ConfigurationError
from shared.protocol.guidance import Message, Usage

logger = logging.getLogger("gkt.cloud")


class ReplayTeacher:
    """Decorates a teacher with a file of its output. Answers sampled without a seed are not recorded."""

    def __init__(self, teacher: Teacher, path: Path) -> None:
        """Raises ConfigurationError if the file cannot be used."""
        self._teacher = teacher
        self.model = teacher.model
        self.max_model_len = teacher.max_model_len
        self.fingerprint = teacher.fingerprint
        self.registry: CollectorRegistry = teacher.registry
        try:
            # The thread that loads the teacher opens the file; the event loop's thread uses it.
            self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # After a crash lost entries are computed again.
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = OFF")
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS outputs (key BLOB PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID"
            )
        except sqlite3.Error as error:
            raise ConfigurationError(f"replay_file: {path} cannot be used: {error}") from error

    def encode(self, messages: Sequence[Message], answer: str = "") -> Prompt:
        return self._teacher.encode(messages, answer)

    def reviewer(self) -> Reviewer:
        self._teacher.reviewer()
        return self

    @property
    def end_id(self) -> int:
        return self._teacher.reviewer().end_id

    def encode_answer(self, text: str) -> list[int]:
        return self._teacher.reviewer().encode_answer(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._teacher.reviewer().decode(ids)

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        self._teacher.check_schema(json_schema)

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        random = params.temperature > 0 and params.seed is None
        key = self._key("stream", _identity(prompt), params.model_copy(update={"max_tokens": 1}).model_dump())
        recorded = [] if random else [_from_json(value) for value in self._load(key) or []]
        if not prompt.ids and not _suffices(recorded, params.max_tokens):
            recorded = []  # a chat API cannot continue seamlessly, so the whole answer is generated again
        chunks = list(recorded)
        text, ids, count = prompt.text, list(prompt.answer), 0
        for position, chunk in enumerate(recorded, 1):
            text += chunk.text
            ids += chunk.token_ids
            count += chunk.count
            if count >= params.max_tokens and chunk.end is None:
                following = recorded[position] if position < len(recorded) else chunk
                usage = (
                    chunk.usage if following.count else following.usage
                )  # the server's count for an answer of this length
                chunk = replace(chunk, end="limit", usage=usage)
            yield chunk
            if chunk.end:
                return
        try:
            # The teacher continues behind the recorded output.
            remaining = params.model_copy(update={"max_tokens": params.max_tokens - count})
            continued = prompt.with_answer(text, ids) if recorded else prompt
            async with aclosing(self._teacher.stream(request_id, continued, remaining, hints)) as more:
                async for chunk in more:
                    if recorded:  # this prompt had the recorded output in it
                        chunk = replace(chunk, cached_tokens=recorded[0].cached_tokens)
                    chunks.append(replace(chunk, end=None) if chunk.end == "limit" else chunk)
                    yield chunk
        finally:
            if not random:
                self._store(key, [_to_json(chunk) for chunk in chunks])

    async def score(
        self, request_id: str, ids: list[int], start: int, hints: SchedulingHints = DEFAULT_HINTS
    ) -> Scores:
        key = self._key("score", ids, start)
        recorded = self._load(key)
        if recorded is not None:
            return Scores(**recorded)
        scores = await self._teacher.reviewer().score(request_id, ids, start, hints)
        self._store(key, asdict(scores))
        return scores

    def check_health(self) -> None:
        self._teacher.check_health()

    async def close(self) -> None:
        self._file.close()
        await self._teacher.close()

    def _key(self, kind: str, prompt: Any, options: Any) -> bytes:
        identity = json.dumps([kind, self.model, self.fingerprint, prompt, options], sort_keys=True)
        return hashlib.sha256(identity.encode()).digest()

    def _load(self, key: bytes) -> Any:
        try:
            row = self._file.execute("SELECT value FROM outputs WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            logger.warning("the replay file cannot be read: %s", error)
            return None
        return None if row is None else json.loads(row[0])

    def _store(self, key: bytes, value: Any) -> None:
        try:
            self._file.execute("INSERT OR REPLACE INTO outputs VALUES (?, ?)", (key, json.dumps(value)))
        except sqlite3.Error as error:
            logger.warning("the replay file cannot be written: %s", error)  # a full disk must not fail a request


def _identity(prompt: Prompt) -> Any:
    """Return the ids of a prompt, or its texts if it has no ids."""
    return prompt.ids or [[(message.role, message.content) for message in prompt.messages], prompt.text]


def _suffices(chunks: Sequence[OutputChunk], max_tokens: int) -> bool:
    return any(chunk.end for chunk in chunks) or sum(chunk.count for chunk in chunks) >= max_tokens


def _to_json(chunk: OutputChunk) -> dict[str, Any]:
    return asdict(replace(chunk, usage=None)) | {"usage": chunk.usage.model_dump() if chunk.usage else None}


def _from_json(value: dict[str, Any]) -> OutputChunk:
    usage = value.get("usage")
    return OutputChunk(**{**value, "usage": Usage(**usage) if usage else None})
